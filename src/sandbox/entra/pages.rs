//! The pages that a person sees: plain forms that work without JavaScript.

use std::fmt::Write as _;

use crate::sandbox::user::User;

const STYLE: &str = "body{margin:0;font:16px/1.5 system-ui,sans-serif;background:#eef1f5;color:#1b1b1b}\
main{box-sizing:border-box;max-width:27rem;margin:8vh auto;padding:2rem;background:#fff;border-radius:.5rem;\
box-shadow:0 2px 12px #0002}h1{font-size:1.4rem;margin:0 0 .5rem}p{margin:.5rem 0}\
button{display:block;width:100%;margin:.5rem 0;padding:.75rem 1rem;font:inherit;text-align:left;background:#fff;\
border:1px solid #8a8886;border-radius:.25rem;cursor:pointer}button:hover,button:focus{background:#f3f2f1}\
button.hint{background:#0067b8;border-color:#0067b8;color:#fff}button small{display:block;opacity:.75}\
input{box-sizing:border-box;width:100%;padding:.6rem;font:inherit;letter-spacing:.1em}\
.note{font-size:.85rem;color:#555}code{word-break:break-all}";

/// The longest list of buttons; the other users sign in by `login_hint`.
const BUTTONS: usize = 20;

/// The sign-in page: one button per user, the one that was hinted at first.
pub(super) fn sign_in<'a>(
    users: impl Iterator<Item = &'a User>,
    hinted: Option<&User>,
    application: &str,
    scope: &str,
) -> String {
    let mut form = String::from("<form method=\"post\">");
    if let Some(user) = hinted {
        button(&mut form, user, true);
    }
    users.filter(|user| Some(*user) != hinted).take(BUTTONS).for_each(|user| button(&mut form, user, false));
    form.push_str(
        "<button name=\"deny\" value=\"1\">Cancel<small>tell the application that I said no</small></button></form>",
    );
    let body = format!(
        "<h1>Simulated Microsoft sign-in</h1><p>Pick an account to continue to application <code>{}</code>.</p>{form}\
         <p class=\"note\">It asks for: {}</p><p class=\"note\">A sandbox: no password, no real account.</p>",
        escape(application),
        escape(scope),
    );
    document("Sign in (sandbox)", &body)
}

/// The page on which the code of a device is typed.
pub(super) fn device<'a>(users: impl Iterator<Item = &'a User>, code: &str, trouble: Option<&str>) -> String {
    let mut form = String::from("<form method=\"post\">");
    let _ = write!(
        form,
        "<p><label>Code <input name=\"user_code\" value=\"{}\" autocomplete=\"off\" required></label></p>",
        escape(code)
    );
    users.take(BUTTONS).for_each(|user| button(&mut form, user, false));
    form.push_str("<button name=\"deny\" value=\"1\">Cancel<small>decline the device</small></button></form>");
    let trouble = trouble.map(|text| format!("<p role=\"alert\"><b>{}</b></p>", escape(text))).unwrap_or_default();
    let body = format!(
        "<h1>Simulated Microsoft device sign-in</h1>{trouble}\
         <p>Enter the code that your device shows, then pick an account.</p>{form}"
    );
    document("Device sign-in (sandbox)", &body)
}

/// A page with one message.
pub(super) fn message(title: &str, text: &str) -> String {
    document(title, &format!("<h1>{}</h1><p>{}</p>", escape(title), escape(text)))
}

/// Sends `fields` to `action` by POST: at once with JavaScript, by a button without (`response_mode=form_post`).
pub(super) fn form_post(action: &str, fields: &[(&str, String)]) -> String {
    let mut form = format!("<form method=\"post\" action=\"{}\">", escape(action));
    for (name, value) in fields {
        let _ = write!(form, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value));
    }
    form.push_str("<button class=\"hint\">Continue</button></form><script>document.forms[0].submit()</script>");
    document("Working...", &form)
}

fn button(form: &mut String, user: &User, hinted: bool) {
    let hint = if hinted { " class=\"hint\" autofocus" } else { "" };
    let _ = write!(
        form,
        "<button name=\"user\" value=\"{}\"{hint}>{}<small>{}</small></button>",
        escape(&user.alias),
        escape(&user.name),
        escape(&user.mail)
    );
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
