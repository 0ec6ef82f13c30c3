//! Scopes in plain words, for the page that names them before a person leaves for the provider.
//!
//! The words are a help to the reader; the raw name always stands beside them, and a scope without words is shown raw.

use crate::graph::scopes::{ALWAYS, short};

/// One line of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub name: String,
    pub words: Option<&'static str>,
}

/// Two of them are one thing to a reader.
const WHO_YOU_ARE: &str = "openid profile";

/// What a sign-in with these `configured` scopes asks for, in the order of the configuration.
pub(super) fn describe(configured: &[String]) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = Vec::new();
    let asked = configured.iter().map(String::as_str).filter(|name| !ALWAYS.contains(name));
    for name in asked.chain([WHO_YOU_ARE, "offline_access"]) {
        if !scopes.iter().any(|scope| scope.name == name) {
            scopes.push(Scope { name: name.to_owned(), words: words(name) });
        }
    }
    scopes
}

fn words(name: &str) -> Option<&'static str> {
    let words = match short(name) {
        WHO_YOU_ARE => "Know who you are: your name and user name",
        "email" => "See your e-mail address",
        "offline_access" => "Do all this while you are away",
        ".default" => "Everything that an administrator has approved for this application",
        "User.Read" => "Read your own profile",
        "User.ReadWrite" => "Read and change your own profile",
        "User.ReadBasic.All" => "Read the basic profiles of people in your organisation",
        "User.Read.All" => "Read the full profiles of people in your organisation",
        "User.ReadWrite.All" => "Read and change the profiles of people in your organisation",
        "People.Read" => "See the people you work with most",
        "Mail.ReadBasic" => "See your mail without bodies and attachments",
        "Mail.Read" => "Read your mail",
        "Mail.ReadWrite" => "Read, change and delete your mail",
        "Mail.Send" => "Send mail as you",
        "Mail.Read.Shared" => "Read mail that you can open, shared mailboxes included",
        "Mail.ReadWrite.Shared" => "Read, change and delete mail that you can open, shared mailboxes included",
        "Mail.Send.Shared" => "Send mail as you and on behalf of others",
        "MailboxSettings.Read" => "Read your mailbox settings",
        "MailboxSettings.ReadWrite" => "Read and change your mailbox settings",
        "IMAP.AccessAsUser.All" => "Read and change your mail by IMAP",
        "POP.AccessAsUser.All" => "Read and change your mail by POP",
        "SMTP.Send" => "Send mail as you by SMTP",
        "Calendars.ReadBasic" => "See when you are busy and the titles of your appointments",
        "Calendars.Read" => "Read your calendars",
        "Calendars.ReadWrite" => "Read, change and delete your appointments",
        "Calendars.Read.Shared" => "Read calendars that you can open, shared ones included",
        "Calendars.ReadWrite.Shared" => "Read and change calendars that you can open, shared ones included",
        "Contacts.Read" => "Read your contacts",
        "Contacts.ReadWrite" => "Read, change and delete your contacts",
        "Files.Read" => "Read your files",
        "Files.Read.All" => "Read all files that you can open",
        "Files.ReadWrite" => "Read, change and delete your files",
        "Files.ReadWrite.All" => "Read, change and delete all files that you can open",
        "Sites.Read.All" => "Read the SharePoint sites that you can open",
        "Sites.ReadWrite.All" => "Read and change the SharePoint sites that you can open",
        "Notes.Read" => "Read your notebooks",
        "Notes.ReadWrite" => "Read and change your notebooks",
        "Tasks.Read" => "Read your tasks",
        "Tasks.ReadWrite" => "Read, change and delete your tasks",
        "Chat.Read" => "Read your chats",
        "Chat.ReadWrite" => "Read your chats and write in them",
        "ChatMessage.Send" => "Send chat messages as you",
        "ChannelMessage.Read.All" => "Read the messages of your channels",
        "ChannelMessage.Send" => "Send messages to channels as you",
        "Team.ReadBasic.All" => "See the teams that you are in",
        "Presence.Read" => "See whether you are available",
        "Group.Read.All" => "Read the groups that you can see",
        "Group.ReadWrite.All" => "Read and change the groups that you can see",
        "Directory.Read.All" => "Read your organisation's directory",
        "Directory.AccessAsUser.All" => "Do in your organisation's directory whatever you may do",
        _ => return None,
    };
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn known_scopes_have_words_and_all_have_names() {
        let scopes = describe(&names(&["https://graph.microsoft.com/Mail.Read", "Odd.Thing", "openid"]));
        let shown: Vec<&str> = scopes.iter().map(|scope| scope.name.as_str()).collect();
        assert_eq!(shown, ["https://graph.microsoft.com/Mail.Read", "Odd.Thing", "openid profile", "offline_access"]);
        assert_eq!(scopes[0].words, Some("Read your mail"));
        assert_eq!(scopes[1].words, None);
    }
}
