//! Which service of Graph a path leads to, and whose: what Graph throttles together. Pure.
//!
//! A table of names, not of everything that Graph has: what is not in it is `Other`, which costs nobody anything. Known to be rough: a user's
//! object id and name are two owners here, though one mailbox.

/// What is throttled as one, for one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Workload<'p> {
    pub service: Service,
    /// The user, group, site or drive that the path names, where each has a share of its own; `None`: that of the token's own user.
    pub owner: Option<&'p str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Mail, calendars, contacts, tasks: one mailbox.
    Outlook,
    OneNote,
    /// OneDrive and SharePoint.
    Files,
    Teams,
    /// Users, groups, applications, policies.
    Directory,
    Reports,
    /// The envelope of a `$batch`.
    Batch,
    Other,
}

impl Service {
    /// As metrics and messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Outlook => "outlook",
            Self::OneNote => "onenote",
            Self::Files => "files",
            Self::Teams => "teams",
            Self::Directory => "directory",
            Self::Reports => "reports",
            Self::Batch => "batch",
            Self::Other => "other",
        }
    }
}

/// `path`: canonical.
pub fn workload(path: &str) -> Workload<'_> {
    let mut segments = path.trim_start_matches('/').split('/');
    let alone = |service| Workload { service, owner: None };
    if !matches!(segments.next(), Some("v1.0" | "beta")) {
        return alone(Service::Other);
    }
    let root = segments.next().unwrap_or_default();
    match root {
        "me" => alone(segments.next().map_or(Service::Directory, of_user)),
        "users" => owned(segments.next(), segments.next().map_or(Service::Directory, of_user)),
        "groups" => owned(segments.next(), segments.next().map_or(Service::Directory, of_group)),
        "sites" => {
            let owner = segments.next();
            let service = if segments.any(|segment| segment == "onenote") { Service::OneNote } else { Service::Files };
            owned(owner, service)
        }
        "drives" | "shares" => owned(segments.next(), Service::Files),
        "drive" => alone(Service::Files),
        "$batch" => alone(Service::Batch),
        "teams" | "chats" | "communications" | "teamwork" | "teamstemplates" | "appcatalogs" => alone(Service::Teams),
        "reports" | "auditlogs" => alone(Service::Reports),
        "administrativeunits"
        | "applications"
        | "contacts"
        | "contracts"
        | "devices"
        | "directory"
        | "directoryobjects"
        | "directoryroles"
        | "directoryroletemplates"
        | "domains"
        | "groupsettings"
        | "identity"
        | "identitygovernance"
        | "identityprotection"
        | "invitations"
        | "oauth2permissiongrants"
        | "organization"
        | "policies"
        | "rolemanagement"
        | "serviceprincipals"
        | "subscribedskus" => alone(Service::Directory),
        _ => alone(Service::Other),
    }
}

/// The directory, Teams and the rest are throttled for the whole organisation: whom the path names does not matter there.
fn owned(owner: Option<&str>, service: Service) -> Workload<'_> {
    let has_owners = matches!(service, Service::Outlook | Service::OneNote | Service::Files);
    Workload { service, owner: owner.filter(|_| has_owners) }
}

/// By what follows `/me` or `/users/{id}`.
fn of_user(segment: &str) -> Service {
    match segment {
        "calendar"
        | "calendargroups"
        | "calendars"
        | "calendarview"
        | "contactfolders"
        | "contacts"
        | "events"
        | "exportitems"
        | "findmeetingtimes"
        | "findroomlists"
        | "findrooms"
        | "getmailtips"
        | "inferenceclassification"
        | "mailboxsettings"
        | "mailfolders"
        | "messages"
        | "outlook"
        | "people"
        | "reminderview"
        | "sendmail"
        | "todo"
        | "translateexchangeids" => Service::Outlook,
        "onenote" => Service::OneNote,
        "drive" | "drives" | "followedsites" => Service::Files,
        "chats" | "joinedteams" | "onlinemeetings" | "presence" | "teamwork" => Service::Teams,
        "activities"
        | "authentication"
        | "deviceenrollmentconfigurations"
        | "employeeexperience"
        | "extensions"
        | "informationprotection"
        | "insights"
        | "manageddevices"
        | "notifications"
        | "photo"
        | "photos"
        | "planner"
        | "print"
        | "settings" => Service::Other,
        _ => Service::Directory,
    }
}

/// By what follows `/groups/{id}`.
fn of_group(segment: &str) -> Service {
    match segment {
        "calendar" | "calendarview" | "conversations" | "events" | "threads" => Service::Outlook,
        "onenote" => Service::OneNote,
        "drive" | "drives" | "sites" => Service::Files,
        "team" => Service::Teams,
        "photo" | "photos" | "planner" => Service::Other,
        _ => Service::Directory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_path() {
        use Service::{Batch, Directory, Files, OneNote, Other, Outlook, Reports, Teams};
        let cases = [
            ("/v1.0/me/messages", Outlook, None),
            ("/beta/me/messages/aaa/attachments/1/$value", Outlook, None),
            ("/v1.0/me/mailfolders/inbox/messages/delta", Outlook, None),
            ("/v1.0/me/events", Outlook, None),
            ("/v1.0/me/calendar/events", Outlook, None),
            ("/v1.0/me/calendarview", Outlook, None),
            ("/v1.0/me/contactfolders/1/contacts", Outlook, None),
            ("/v1.0/me/sendmail", Outlook, None),
            ("/v1.0/me/mailboxsettings/timezone", Outlook, None),
            ("/v1.0/me/outlook/mastercategories", Outlook, None),
            ("/v1.0/me/inferenceclassification/overrides", Outlook, None),
            ("/v1.0/me/todo/lists", Outlook, None),
            ("/v1.0/users/bob@contoso.com/messages", Outlook, Some("bob@contoso.com")),
            ("/v1.0/users/1234/sendmail", Outlook, Some("1234")),
            ("/v1.0/groups/g1/threads/t/posts", Outlook, Some("g1")),
            ("/v1.0/groups/g1/events", Outlook, Some("g1")),
            ("/v1.0/groups/g1/conversations", Outlook, Some("g1")),
            ("/v1.0/me/onenote/notebooks", OneNote, None),
            ("/v1.0/users/bob/onenote/pages", OneNote, Some("bob")),
            ("/v1.0/sites/s1/onenote/pages", OneNote, Some("s1")),
            ("/v1.0/groups/g1/onenote/pages", OneNote, Some("g1")),
            ("/v1.0/me/drive/root:/a.txt:/content", Files, None),
            ("/v1.0/drive/root", Files, None),
            ("/v1.0/drives/d1/items/1", Files, Some("d1")),
            ("/v1.0/shares/u!x/driveitem", Files, Some("u!x")),
            ("/v1.0/sites/contoso.sharepoint.com,1,2/lists", Files, Some("contoso.sharepoint.com,1,2")),
            ("/v1.0/sites", Files, None),
            ("/v1.0/users/bob/drive/root/children", Files, Some("bob")),
            ("/v1.0/groups/g1/drive", Files, Some("g1")),
            ("/v1.0/teams/t1/channels", Teams, None),
            ("/v1.0/chats/c/messages", Teams, None),
            ("/v1.0/communications/calls", Teams, None),
            ("/v1.0/users/bob/chats", Teams, None),
            ("/v1.0/groups/g1/team", Teams, None),
            ("/v1.0/me", Directory, None),
            ("/v1.0/me/manager", Directory, None),
            ("/v1.0/users", Directory, None),
            ("/v1.0/users/bob", Directory, None),
            ("/v1.0/users/delta", Directory, None),
            ("/v1.0/groups/g1/members", Directory, None),
            ("/v1.0/contacts", Directory, None),
            ("/v1.0/applications/a", Directory, None),
            ("/v1.0/reports/getemailactivityuserdetail/period=d7", Reports, None),
            ("/v1.0/auditlogs/signins", Reports, None),
            ("/v1.0/$batch", Batch, None),
            ("/beta/$batch", Batch, None),
            ("/v1.0/me/photo/$value", Other, None),
            ("/v1.0/subscriptions", Other, None),
            ("/v1.0/$metadata", Other, None),
            ("/v1.0/messages", Other, None),
            ("/v1.0", Other, None),
            ("/me/messages", Other, None),
            ("/", Other, None),
            ("", Other, None),
        ];
        for (path, service, owner) in cases {
            assert_eq!(workload(path), Workload { service, owner }, "{path}");
        }
    }
}
