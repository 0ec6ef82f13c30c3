//! README and docs agree with what is here: links and anchors lead somewhere, files and `make` targets that are named exist, the command
//! line understands each `bearerd ...`, snippets of TOML are configuration. `tests/e2e/test/20-docs.test.mjs` runs the commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bearerd::config::Config;

struct Document {
    path: PathBuf,
    text: String,
}

/// A fenced block: its language, its text.
type Block<'a> = (&'a str, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document that a reader meets, by its path in the repository.
fn documents() -> Vec<Document> {
    let within = |directory: &str| {
        let entries = fs::read_dir(root().join(directory)).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let paths = ["", "docs", "docs/errors", "docs/decisions"].into_iter().flat_map(within);
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut documents: Vec<_> = paths
        .map(|path| Document {
            text: fs::read_to_string(&path).expect("UTF-8"),
            path: path.strip_prefix(root()).expect("within").to_owned(),
        })
        .collect();
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(documents.len() > 30 && documents.iter().any(|document| document.path == Path::new("README.md")));
    documents
}

impl Document {
    /// The text without its blocks, and the blocks.
    fn parts(&self) -> (String, Vec<Block<'_>>) {
        let (mut prose, mut blocks, mut open) = (String::new(), Vec::new(), None::<Block<'_>>);
        for line in self.text.lines() {
            match (line.strip_prefix("```"), open.take()) {
                (Some(language), None) => open = Some((language, String::new())),
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some((language, text))) => open = Some((language, text + line + "\n")),
                (None, None) => prose.extend([line, "\n"]),
            }
        }
        assert!(open.is_none(), "{}: a block does not end", self.path.display());
        (prose, blocks)
    }

    /// What is code: the lines of its blocks (continued ones as one), and each `...` of its text.
    fn code(&self) -> Vec<String> {
        let (prose, blocks) = self.parts();
        let inline = prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "));
        let lines = blocks.iter().flat_map(|(_, text)| {
            text.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        });
        lines.chain(inline).collect()
    }

    fn anchors(&self) -> BTreeSet<String> {
        let (prose, _) = self.parts();
        prose.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
    }
}

/// What a heading's link is at the usual places.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut count = 0;
    for document in &documents {
        let (prose, _) = document.parts();
        let directory = document.path.parent().expect("a file's");
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, place) = link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { root().join(&document.path) } else { root().join(directory).join(file) };
            let target = target.canonicalize().unwrap_or_else(|_| panic!("{}: {link}", document.path.display()));
            let Some(place) = place else { continue };
            let target = target.strip_prefix(root().canonicalize().expect("the root")).expect("in the repository");
            let target = documents.iter().find(|document| document.path == target).expect("a document");
            assert!(target.anchors().contains(place), "{}: {link}", document.path.display());
        }
    }
    assert!(count > 100, "{count}");
}

/// What a shell would make of the words of one command: enough for those that the documents have.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quote, mut word) = (Vec::new(), None, None::<String>);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => (quote, word) = (Some(c), Some(word.unwrap_or_default())),
            (Some(open), _) if open == c => quote = None,
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '&' | ';' | '>' | '<' | ')') => break,
            (None, '#') if word.is_none() => break,
            (_, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The calls of a program in a line of code, with their arguments: at its start, after `;`, `&&`, `do`, `sudo`, or a container's name.
fn commands_of(line: &str, program: &str) -> Vec<Vec<String>> {
    let starts = |before: &str| {
        let before = before.trim_end_matches("sudo ").trim_end();
        before.is_empty()
            || ["$", ";", "&&", "do", "--", "proxy", "bearerd", "exec", "("].iter().any(|end| before.ends_with(end))
    };
    let called = format!("{program} ");
    let found = line.match_indices(&called).filter(|(at, _)| starts(&line[..*at])).map(|(at, _)| at);
    // A container may be called as the program is.
    found.map(|at| words(&line[at..])).filter(|words| words.get(1).is_none_or(|word| word != program)).collect()
}

/// As a reader would type what a document says for all cases: without brackets, the first of several, a time for TIME.
fn typed(command: &[String]) -> Option<Vec<String>> {
    let word = |word: &String| {
        let word = word.trim_matches(['[', ']']);
        if word == "TIME" { "2026-01-01T00:00:00Z".to_owned() } else { word.to_owned() }
    };
    let whole = !command.iter().any(|word| word.contains("..."));
    whole.then(|| command.iter().map(word).collect())
}

/// Texts speak of verbs by their names alone: `bearerd clients new`.
fn names_a_verb(command: &[String]) -> bool {
    let whole = bearerd::cli::command();
    command[1..].iter().try_fold(&whole, |above, name| above.find_subcommand(name)).is_some()
}

/// A line of the log.
const SERVES: &str = "serves";

#[test]
fn the_command_line_understands_every_invocation() {
    let (mut count, mut wrong) = (0, Vec::new());
    for document in documents().iter().filter(|document| document.path != Path::new("CHANGELOG.md")) {
        let invocations = document.code().into_iter().flat_map(|line| commands_of(&line, "bearerd"));
        for command in invocations.filter_map(|command| typed(&command)) {
            count += 1;
            if command[1..] == [SERVES] || names_a_verb(&command) {
                continue;
            }
            if let Err(error) = bearerd::cli::command().try_get_matches_from(&command) {
                let error = error.to_string();
                wrong.push(format!("{}: {}: {error}", document.path.display(), command.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{count} invocations are understood");
    assert!(count > 100, "{count}");
}

#[test]
fn every_make_target_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("a file");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut count = 0;
    for document in documents() {
        for command in document.code().iter().flat_map(|line| commands_of(line, "make")) {
            // A variable is no target, and `...` stands for several.
            for target in command[1..].iter().filter(|word| !word.contains('=') && *word != "...") {
                count += 1;
                assert!(targets.contains(&**target), "{}: make {target}", document.path.display());
            }
        }
    }
    assert!(count > 10, "{count}");
}

/// A path of the repository starts with one of its directories, or with one in src.
#[test]
fn every_file_that_is_named_is_there() {
    let (mut count, mut wrong) = (0, Vec::new());
    for document in documents().iter().filter(|document| document.path != Path::new("CHANGELOG.md")) {
        for line in document.code() {
            let split = |c: char| c.is_whitespace() || "`'\"(),;=".contains(c);
            for word in line.split(split).map(|word| word.trim_end_matches([':', '.'])) {
                let ours = ["config/", "docker/", "docs/", "benches/", "fuzz/", "src/", "tests/", ".ci/"];
                if ours.iter().any(|directory| word.starts_with(directory)) && !word.contains(['*', '{', '<']) {
                    count += 1;
                    if !root().join(word).exists() && !root().join("src").join(word).exists() {
                        wrong.push(format!("{}: {word}", document.path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "{count}");
}

/// Each snippet is accepted, with the least around it that it needs; what stands for a secret or an id may be no valid one.
#[test]
fn every_snippet_of_toml_is_configuration() {
    let home = tempfile::tempdir().expect("a directory");
    let placeholders = [
        ("sha256:...".to_owned(), format!("sha256:{}", "0".repeat(64))),
        ("p=1$...".to_owned(), "p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g".to_owned()),
        ("<directory id>".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
        ("<application id>".to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()),
        ("\"client-secret\"".to_owned(), format!("{:?}", home.path().join("client-secret"))),
    ];
    fs::write(home.path().join("client-secret"), "s3cret\n").expect("a file");
    fs::set_permissions(home.path().join("client-secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("its mode");
    let minimal = fs::read_to_string(root().join("config/minimal.toml")).expect("a file");
    let mut count = 0;
    for document in documents() {
        for (_, snippet) in document.parts().1.iter().filter(|(language, _)| *language == "toml") {
            count += 1;
            let filled = placeholders.iter().fold(snippet.clone(), |text, (from, to)| text.replace(from, to));
            // The identities of an application need a credential.
            let around = if snippet.contains("[providers.") {
                String::new()
            } else {
                format!("{minimal}credentials = [{{ secret = \"s3cret\" }}]\n")
            };
            let whole = format!("{around}\n{filled}");
            if let Err(mistakes) = Config::from_text(Some((Path::new("bearerd.toml"), &whole)), &[].into(), &[]) {
                panic!("{}:\n{snippet}\n{mistakes}", document.path.display());
            }
        }
    }
    assert!(count >= 8, "{count}");
}

/// The README's registration is what `bearerd init` prints for the same answers.
#[test]
fn the_registration_is_that_of_init() {
    let home = tempfile::tempdir().expect("a directory");
    let answers = ["--tenant", "contoso.onmicrosoft.com", "--client-id", "", "--credential", "secret"];
    let answers = [&["init"], &answers[..], &["--may", "read-mail", "--place", "here"]].concat();
    let printed = crate::cli::bearerd(home.path(), &answers);
    let printed: Vec<&str> =
        crate::cli::out(&printed).lines().filter_map(|line| line.strip_prefix("       ")).collect();
    let documents = documents();
    let readme = documents.iter().find(|document| document.path == Path::new("README.md")).expect("it is there");
    let (_, blocks) = readme.parts();
    let (_, typed) = blocks.iter().find(|(_, text)| text.starts_with("az login")).expect("the commands of az");
    assert_eq!(typed.lines().collect::<Vec<_>>(), printed);
}
