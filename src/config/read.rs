//! Reads the sections of a tree: looks every key up in the table of keys, fills in its default, and notes what is wrong.
//!
//! A reading that fails is `Reported`: the mistake stands in the report, the caller goes on with the next key and gives up at the end,
//! so that one run finds all mistakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::files::Print;
use super::keys::{Key, Keys, Kind, Presence, find, nearest};
use super::mistakes::{Mistake, Reported};
use super::tree::{Node, Origin, Table, Value, from_text};
use super::watched::Files;
use super::{files, values};
use crate::secret::Secret;

/// What a resolution found out beside the configuration itself.
#[derive(Default)]
pub struct Report {
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<String>>,
    settings: RefCell<Vec<Setting>>,
    files: RefCell<Files>,
    unshown: RefCell<BTreeMap<String, Print>>,
}

/// What a resolution found out, in the hands of whoever asked for it.
pub struct Findings {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<String>,
    pub settings: Vec<Setting>,
    /// Every file that was read, or should have been.
    pub files: Files,
    /// Of what `settings` does not show: secrets, and the content of files. By the path of the key.
    pub unshown: BTreeMap<String, Print>,
}

/// One key in effect, for `config print`. A secret's value is masked already.
#[derive(Clone, Debug)]
pub struct Setting {
    pub section: String,
    /// The key's place in its table.
    pub at: usize,
    pub key: &'static str,
    pub value: toml::Value,
    pub origin: Origin,
}

impl Report {
    pub fn add(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    pub fn at(&self, path: String, what: impl Into<String>, origin: &Origin) {
        self.add(Mistake { path, what: what.into(), origin: origin.clone() });
    }

    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    pub fn file(&self, path: &Path, print: Option<Print>) {
        self.files.borrow_mut().note(path, print);
    }

    pub fn findings(self) -> Findings {
        Findings {
            mistakes: self.mistakes.into_inner(),
            warnings: self.warnings.into_inner(),
            settings: self.settings.into_inner(),
            files: self.files.into_inner(),
            unshown: self.unshown.into_inner(),
        }
    }
}

/// One table of the tree under its path, such as `server`, `providers.entra` or `clients[2]`.
pub struct Section<'a> {
    path: String,
    keys: Keys,
    table: Option<&'a Table>,
    origin: Origin,
    report: &'a Report,
}

pub const MASK: &str = "********";

impl<'a> Section<'a> {
    /// The whole file.
    pub fn root(keys: Keys, table: &'a Table, report: &'a Report) -> Self {
        Self::of(String::new(), keys, Some(table), Origin::Default, report)
    }

    fn of(path: String, keys: Keys, table: Option<&'a Table>, origin: Origin, report: &'a Report) -> Self {
        let section = Self { path, keys, table, origin, report };
        section.refuse_unknown();
        section
    }

    /// A key that has a value or a default.
    pub fn get<T>(&self, name: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Result<T, Reported> {
        match self.find(name, parse)? {
            Some(value) => Ok(value),
            None => Err(self.missing(name)),
        }
    }

    /// A key that may be left out.
    pub fn find<T>(&self, name: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Result<Option<T>, Reported> {
        let Some(node) = self.node(name) else { return Ok(None) };
        let parsed = parse(&node.value).map_err(|what| self.wrong(&self.path_of(name), what, &node.origin))?;
        let shown = printable(self.key(name).kind, &node.value);
        if let Value::Text(text) = &node.value
            && shown.as_str() != Some(text)
        {
            self.note_unshown(name, Sha256::digest(text).into());
        }
        self.show(name, shown, node.origin);
        Ok(Some(parsed))
    }

    /// One of the words of the table, and what each means.
    pub fn choice<T: Copy>(&self, name: &str, meanings: &[(&str, T)]) -> Result<T, Reported> {
        let Kind::Choice(words, later) = self.key(name).kind else { panic!("{name} is no choice") };
        debug_assert!(meanings.iter().map(|(word, _)| *word).eq(words.iter().copied()), "{name}: {words:?}");
        self.get(name, |value| {
            let text = values::text(value)?;
            if let Some((_, meaning)) = meanings.iter().find(|(word, _)| *word == text) {
                return Ok(*meaning);
            }
            if later.contains(&text.as_str()) {
                return Err(format!("{text:?} is not supported by this version"));
            }
            let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            Err(format!("must be {}", words.join(" or ")))
        })
    }

    /// A list of texts, each with its own mistakes; a single text is a list of one.
    pub fn list<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Reported> {
        Ok(self.find_list(name, parse)?.unwrap_or_default())
    }

    pub fn find_list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, Reported> {
        let Some(node) = self.node(name) else { return Ok(None) };
        let items = match &node.value {
            Value::List(items) => items.clone(),
            Value::Text(_) => vec![node.clone()],
            other => {
                let what = format!("must be a text or a list of texts, not {}", other.described());
                return Err(self.wrong(&self.path_of(name), what, &node.origin));
            }
        };
        let mut parsed = Ok(Vec::new());
        for (at, item) in items.iter().enumerate() {
            let result = match &item.value {
                Value::Text(text) => parse(text),
                other => Err(format!("must be a text, not {}", other.described())),
            };
            match result {
                Ok(value) => {
                    if let Ok(list) = &mut parsed {
                        list.push(value);
                    }
                }
                Err(what) => parsed = Err(self.wrong(&format!("{}[{at}]", self.path_of(name)), what, &item.origin)),
            }
        }
        self.show(name, printable(Kind::List, &Value::List(items)), node.origin);
        parsed.map(Some)
    }

    /// A secret `name`, or the content of the file that `name_file` names.
    pub fn secret(&self, name: &str) -> Result<Option<Secret<String>>, Reported> {
        let file_key = format!("{name}_file");
        let plain = self.find(name, values::text)?;
        let file = self.find(&file_key, values::path)?;
        match (plain, file) {
            (Some(_), Some(_)) => Err(self.mistake(name, format!("give either {name} or {file_key}, not both"))),
            (Some(plain), None) if plain.trim().is_empty() => Err(self.mistake(name, "is empty")),
            (Some(plain), None) => Ok(Some(Secret::new(plain))),
            (None, Some(path)) => self.file(&file_key, &path, files::secret).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// What `read` makes of the file that a key names; its content belongs to the configuration. Mistakes name the key and the file.
    pub fn file<T>(
        &self,
        name: &str,
        path: &Path,
        read: impl FnOnce(&Path) -> Result<files::Checked<T>, String>,
    ) -> Result<T, Reported> {
        let checked = self.checked(name, path, read);
        self.report.file(path, checked.as_ref().ok().map(|checked| checked.print));
        let files::Checked { content, print, .. } = checked?;
        self.note_unshown(name, print);
        Ok(content)
    }

    /// The same for a file of which only the name belongs to the configuration.
    pub fn checked<T>(
        &self,
        name: &str,
        path: &Path,
        read: impl FnOnce(&Path) -> Result<files::Checked<T>, String>,
    ) -> Result<files::Checked<T>, Reported> {
        let checked = read(path).map_err(|what| self.mistake(name, format!("{}: {what}", path.display())))?;
        if let Some(warning) = &checked.warning {
            self.warn(name, format!("{}: {warning}", path.display()));
        }
        Ok(checked)
    }

    /// The certificates of a PEM file that may be left out.
    pub fn certificates(&self, name: &str) -> Result<Option<String>, Reported> {
        match self.find(name, values::path)? {
            Some(path) => self.file(name, &path, files::certificates).map(Some),
            None => Ok(None),
        }
    }

    pub fn section(&self, name: &str) -> Result<Section<'a>, Reported> {
        let Kind::Table(keys) = self.key(name).kind else { panic!("{name} is no table") };
        match self.table.and_then(|table| table.get(name)) {
            None => Ok(Section::of(self.path_of(name), keys, None, self.origin.clone(), self.report)),
            Some(node) => self.as_section(self.path_of(name), keys, node),
        }
    }

    /// A table that may be left out.
    pub fn find_section(&self, name: &str) -> Result<Option<Section<'a>>, Reported> {
        if self.has(name) { self.section(name).map(Some) } else { Ok(None) }
    }

    /// The tables under names that the user gave.
    pub fn named(&self, name: &str) -> Result<Vec<(&'a str, Section<'a>)>, Reported> {
        let Kind::Named(keys) = self.key(name).kind else { panic!("{name} holds no named tables") };
        let Some(node) = self.table.and_then(|table| table.get(name)) else { return Ok(Vec::new()) };
        let Value::Table(entries) = &node.value else {
            let what = format!("must be a table, not {}", node.value.described());
            return Err(self.wrong(&self.path_of(name), what, &node.origin));
        };
        let section = |(id, node): (&'a String, &'a Node)| {
            let path = format!("{}.{id}", self.path_of(name));
            Ok((id.as_str(), self.as_section(path, keys, node)?))
        };
        every(entries.iter().map(section))
    }

    /// A named table that nobody wrote, with the defaults of its keys.
    pub fn absent(&self, name: &str, id: &str) -> Section<'a> {
        let Kind::Named(keys) = self.key(name).kind else { panic!("{name} holds no named tables") };
        Section::of(format!("{}.{id}", self.path_of(name)), keys, None, Origin::Default, self.report)
    }

    /// The tables of a list; `None` where the key is left out.
    pub fn tables(&self, name: &str) -> Result<Option<Vec<Section<'a>>>, Reported> {
        let Kind::Tables(keys) = self.key(name).kind else { panic!("{name} is no list of tables") };
        let Some(node) = self.table.and_then(|table| table.get(name)) else { return Ok(None) };
        let Value::List(items) = &node.value else {
            let what = format!("must be a list of tables, not {}", node.value.described());
            return Err(self.wrong(&self.path_of(name), what, &node.origin));
        };
        let section =
            |(at, item): (usize, &'a Node)| self.as_section(format!("{}[{at}]", self.path_of(name)), keys, item);
        every(items.iter().enumerate().map(section)).map(Some)
    }

    /// Somebody wrote this key.
    pub fn has(&self, name: &str) -> bool {
        self.key(name);
        self.table.is_some_and(|table| table.contains_key(name))
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn missing(&self, name: &str) -> Reported {
        self.mistake(name, "is missing")
    }

    /// Puts a mistake about a key into the report.
    pub fn mistake(&self, name: &str, what: impl Into<String>) -> Reported {
        let origin = self.table.and_then(|table| table.get(name)).map_or(&self.origin, |node| &node.origin);
        self.wrong(&self.path_of(name), what, origin)
    }

    /// Puts a mistake about the section itself into the report.
    pub fn mistake_here(&self, what: impl Into<String>) -> Reported {
        self.wrong(&self.path, what, &self.origin)
    }

    pub fn warn(&self, name: &str, what: impl AsRef<str>) {
        self.report.warn(format!("{}: {}", self.path_of(name), what.as_ref()));
    }

    /// A value that was worked out because nobody wrote one.
    pub fn derived(&self, name: &str, value: impl Into<toml::Value>) {
        if !self.has(name) {
            self.show(name, value.into(), Origin::Default);
        }
    }

    fn note_unshown(&self, name: &str, print: Print) {
        self.report.unshown.borrow_mut().insert(self.path_of(name), print);
    }

    fn show(&self, name: &str, value: toml::Value, origin: Origin) {
        let at = self.keys.iter().position(|key| key.name == name).expect("code asks for keys of the table only");
        let setting = Setting { section: self.path.clone(), at, key: self.keys[at].name, value, origin };
        self.report.settings.borrow_mut().push(setting);
    }

    /// The value as written, or the default.
    fn node(&self, name: &str) -> Option<Node> {
        if let Some(node) = self.table.and_then(|table| table.get(name)) {
            return Some(node.clone());
        }
        let Key { kind, presence: Presence::Default(text), .. } = self.key(name) else { return None };
        Some(from_text(*kind, text, &Origin::Default).expect("a default is of its key's kind"))
    }

    fn as_section(&self, path: String, keys: Keys, node: &'a Node) -> Result<Section<'a>, Reported> {
        match &node.value {
            Value::Table(table) => Ok(Section::of(path, keys, Some(table), node.origin.clone(), self.report)),
            other => Err(self.wrong(&path, format!("must be a table, not {}", other.described()), &node.origin)),
        }
    }

    fn refuse_unknown(&self) {
        for (name, node) in self.table.into_iter().flatten() {
            let what = match (find(self.keys, name), nearest(self.keys, name)) {
                (Some(Key { presence: Presence::Reserved, .. }), _) => "is not supported by this version".to_owned(),
                (Some(_), _) => continue,
                (None, Some(meant)) => format!("no such key; did you mean {meant}?"),
                (None, None) => "no such key".to_owned(),
            };
            self.wrong(&self.path_of(name), what, &node.origin);
        }
    }

    fn wrong(&self, path: &str, what: impl Into<String>, origin: &Origin) -> Reported {
        self.report.at(path.to_owned(), what, origin);
        Reported
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn key(&self, name: &str) -> &'static Key {
        find(self.keys, name).expect("code asks for keys of the table only")
    }
}

/// All of them, or `Reported` after all of them were tried.
pub fn every<T>(results: impl Iterator<Item = Result<T, Reported>>) -> Result<Vec<T>, Reported> {
    let results: Vec<_> = results.collect();
    results.into_iter().collect()
}

/// As `config print` shows it.
fn printable(kind: Kind, value: &Value) -> toml::Value {
    match value {
        _ if matches!(kind, Kind::Secret) => MASK.into(),
        Value::Text(text) if text.starts_with("$argon2") => format!("$argon2id${MASK}").into(),
        Value::Text(text) => text.clone().into(),
        Value::Integer(integer) => (*integer).into(),
        Value::Number(number) => (*number).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::List(items) => items.iter().map(|item| printable(kind, &item.value)).collect::<Vec<_>>().into(),
        Value::Table(entries) if matches!(kind, Kind::Texts) => {
            let entry = |(name, node): (&String, &Node)| (name.clone(), printable(Kind::Text, &node.value));
            toml::Value::Table(entries.iter().map(entry).collect())
        }
        Value::Table(_) => MASK.into(),
    }
}
