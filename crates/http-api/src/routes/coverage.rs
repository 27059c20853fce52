//! The page of routes with the tests of each, and the rule that every route has one.
//!
//! Tests are found, not listed: over real sockets where a test names the path, in the clients' tests where one calls the
//! client's method for it ([`CALLS`]), in the recorded translations where the operation has any ([`GOLDEN`]).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Operation as Op;
use super::{ROUTES, Route, Verb};

/// Folders with tests that ask over sockets.
const ASKING: &[&str] = &["crates/http-api/tests/it", "tests/it", "tests/clients", "tests/desktop"];

/// Operation, a part of the test file's name, and how the client asks for it.
const CALLS: &[(Op, &str, &str)] = &[
    (Op::OllamaGenerate, "ollama", ".generate("),
    (Op::OllamaChat, "ollama", ".chat("),
    (Op::OllamaEmbed, "ollama", ".embed("),
    (Op::OllamaEmbeddings, "ollama", ".embeddings("),
    (Op::OllamaTags, "ollama", ".list("),
    (Op::OllamaPs, "ollama", ".ps("),
    (Op::OllamaShow, "ollama", ".show("),
    (Op::OllamaPull, "ollama", ".pull("),
    (Op::OllamaPull, "downloads", ".pull("),
    (Op::OllamaPush, "ollama", ".push("),
    (Op::OllamaPush, "downloads", ".push("),
    (Op::OllamaCreate, "ollama", ".create("),
    (Op::OllamaCopy, "ollama", ".copy("),
    (Op::OllamaDelete, "ollama", ".delete("),
    (Op::ListModels, "openai", "models.list("),
    (Op::OneModel, "openai", "models.retrieve("),
    (Op::ChatCompletions, "openai", "chat.completions.create("),
    (Op::ChatCompletions, "langchain", "ChatOpenAI("),
    (Op::Completions, "openai", " client.completions.create("),
    (Op::Embeddings, "openai", "embeddings.create("),
    (Op::Responses, "openai", "responses.create("),
    (Op::GetResponse, "openai", "responses.retrieve("),
    (Op::DeleteResponse, "openai", "responses.delete("),
    (Op::ResponseInput, "openai", "input_items.list("),
    (Op::Transcriptions, "openai", "transcriptions.create("),
    (Op::Translations, "openai", "translations.create("),
    (Op::Speech, "openai", "speech.create("),
    (Op::Messages, "anthropic", "messages.create("),
    (Op::CountTokens, "anthropic", "count_tokens("),
    (Op::CountTokens, "anthropic", "countTokens("),
    (Op::SdkSocket, "lmstudio", "Client("),
];

/// Operation and what the names of its recordings in `tests/golden` begin with.
const GOLDEN: &[(Op, &str)] = &[
    (Op::OllamaGenerate, "ollama/generate-"),
    (Op::OllamaChat, "ollama/chat-"),
    (Op::OllamaEmbed, "ollama/embed"),
    (Op::OllamaTags, "ollama/tags"),
    (Op::OllamaPs, "ollama/ps"),
    (Op::OllamaShow, "ollama/show"),
    (Op::ListModels, "openai/models"),
    (Op::ChatCompletions, "openai/chat-"),
    (Op::Completions, "openai/completion-"),
    (Op::Embeddings, "openai/embeddings-"),
    (Op::Rerank, "openai/rerank"),
    (Op::Responses, "responses/"),
    (Op::Transcriptions, "audio/"),
    (Op::Translations, "audio/translate"),
    (Op::Speech, "audio-speech/"),
    (Op::Messages, "anthropic/messages-"),
    (Op::CountTokens, "anthropic/count-"),
    (Op::LlamaCompletion, "llamacpp/completion-"),
    (Op::LlamaProps, "llamacpp/props"),
    (Op::LlamaModelEvents, "llamacpp/events"),
    (Op::V0Models, "lmstudio/models"),
    (Op::V0Model, "lmstudio/model."),
    (Op::V0ChatCompletions, "lmstudio/chat"),
    (Op::V0Completions, "lmstudio/comp"),
    (Op::V1Models, "lmstudio/v1/models"),
    (Op::V1Chat, "lmstudio/v1/chat"),
    (Op::V1Load, "lmstudio/v1/load"),
    (Op::V1Download, "lmstudio/v1/download"),
    (Op::SdkSocket, "lmstudio-ws/"),
    (Op::Health, "llamarunner/health"),
    (Op::ModelStatus, "llamarunner/status"),
    (Op::ModelInfo, "llamarunner/info"),
    (Op::SystemStatus, "llamarunner/system"),
    (Op::ServerInfo, "llamarunner/server"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file below a folder, relative to `tests` or with its crate's name, in order.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("__pycache__") {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

struct Source {
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ASKING {
        files(&root().join(folder), &mut found);
    }
    let is_test = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "rs" || end == "py" || end == "js")
    };
    let shown = |path: &Path| {
        let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        path.replace("crates/http-api/tests/it/", "http-api/")
            .replace("tests/", "")
    };
    found
        .iter()
        .filter(|path| is_test(path))
        .map(|path| Source {
            name: shown(path),
            text: std::fs::read_to_string(path).unwrap(),
        })
        .collect()
}

/// Does this test name the route's path, and its method where the path has several?
fn names(source: &Source, route: &Route) -> bool {
    let shared = ROUTES.iter().filter(|other| other.path == route.path).count() > 1;
    let lines: Vec<&str> = source.text.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        if !line_names(line, route.path) {
            return false;
        }
        if !shared {
            return true;
        }
        let near = lines[at.saturating_sub(3)..(at + 2).min(lines.len())]
            .join("\n")
            .to_lowercase();
        match route.method {
            // What names no method asks with the usual one.
            Verb::Get => near.contains("get") || !["post", "delete", "head"].iter().any(|word| near.contains(word)),
            method => near.contains(method.as_str()) || (method == Verb::Head && near.contains("-i")),
        }
    })
}

/// The path stands in the line as a whole: after a quote or a placeholder, up to a quote, a query or its parameter.
fn line_names(line: &str, path: &str) -> bool {
    let (start, rest) = path.split_once('{').map_or((path, None), |(start, rest)| {
        (start, Some(rest.split_once('}').map_or("", |(_, rest)| rest)))
    });
    let ends = |text: &str| text.is_empty() || text.starts_with(['"', '\'', '`', '?', ' ', '\\']);
    line.match_indices(start).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + start.len()..]);
        // In a string, behind a placeholder, or in a request line.
        let begins = before.ends_with(['"', '\'', '`', '}'])
            || ["GET ", "HEAD ", "POST ", "DELETE "]
                .iter()
                .any(|method| before.ends_with(method));
        begins
            && match rest {
                None => ends(after),
                Some("") => {
                    let id = after.split(['"', '\'', '`', '?']).next().unwrap_or_default();
                    let joined = id.is_empty() && after.get(1..).is_some_and(|next| next.trim_start().starts_with('+'));
                    let of_another = |other: &Route| {
                        let below = other.path.strip_prefix(path).filter(|below| !below.is_empty());
                        below.is_some_and(|below| id.ends_with(below))
                    };
                    joined || (!id.is_empty() && !ROUTES.iter().any(of_another))
                }
                Some(rest) => after
                    .find(rest)
                    .is_some_and(|end| end > 0 && ends(&after[end + rest.len()..])),
            }
    })
}

fn tests(route: &Route, sources: &[Source], golden: &[String]) -> BTreeSet<String> {
    let calls = |source: &Source| {
        CALLS.iter().any(|(operation, part, call)| {
            *operation == route.operation && source.name.contains(part) && source.text.contains(call)
        })
    };
    let mut found: BTreeSet<String> = sources
        .iter()
        .filter(|source| names(source, route) || (source.name.starts_with("clients/") && calls(source)))
        .map(|source| source.name.clone())
        .collect();
    for (_, prefix) in GOLDEN.iter().filter(|(operation, _)| *operation == route.operation) {
        assert!(
            golden.iter().any(|name| name.starts_with(prefix)),
            "tests/golden/{prefix}* is not there"
        );
        found.insert(format!("golden/{}", prefix.trim_end_matches(['-', '.', '/'])));
    }
    found
}

/// The table as a page: dialect, method, path, operation, access class, what it does, where it is tested.
fn page() -> String {
    let mut page = String::from(
        "# API coverage\n\nEvery route of the three listeners, generated from `crates/http-api/src/routes/table.rs`, with the \
         tests that ask for it: `http-api`\nover sockets, `clients` with published libraries, `it` and `desktop` the whole \
         product, `golden` recorded translations. Do not edit; run\n`UPDATE_GENERATED=1 cargo test -p http-api`.\n\n\
         | dialect | method | path | operation | class | summary | tests |\n|---|---|---|---|---|---|---|\n",
    );
    let sources = sources();
    let mut golden = Vec::new();
    files(&root().join("tests/golden"), &mut golden);
    let recordings = root().join("tests/golden");
    let golden: Vec<String> = golden
        .iter()
        .map(|path| {
            path.strip_prefix(&recordings)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/")
        })
        .collect();
    let mut missing = Vec::new();
    for route in ROUTES {
        let tests = tests(route, &sources, &golden);
        if tests.is_empty() {
            missing.push(format!("{} {}", route.method.to_http(), route.path));
        }
        writeln!(
            page,
            "| {} | {} | `{}` | {:?} | {} | {} | {} |",
            route.dialect.as_str(),
            route.method.to_http(),
            route.path,
            route.operation,
            route.class.as_str(),
            route.summary.replace('|', "\\|"),
            tests.into_iter().collect::<Vec<_>>().join(", ")
        )
        .unwrap();
    }
    assert!(missing.is_empty(), "routes without a test: {missing:#?}");
    page
}

#[test]
fn every_route_has_a_test_and_the_page_says_which() {
    let page = page();
    let path = root().join("docs/api-coverage.md");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/api-coverage.md is not current: run UPDATE_GENERATED=1 cargo test -p http-api"
    );
}

#[test]
fn a_line_names_a_whole_path() {
    for (line, path, is) in [
        (r#"get(server.ollama, "/api/tags")"#, "/api/tags", true),
        (r#"f"{runner.ollama}/api/tags""#, "/api/tags", true),
        (r#""/api/tags/x""#, "/api/tags", false),
        (r#""/v1/models/x""#, "/v1/models/{id}", true),
        (r#""/v1/models/x/status""#, "/v1/models/{id}", false),
        (r#""/v1/models/""#, "/v1/models/{id}", false),
        (r#""/v1/models/x/status?a=b""#, "/v1/models/{id}/status", true),
        (r#""/v1/models/x/stop""#, "/v1/models/{id}/status", false),
        (r#""/v1/rerank""#, "/rerank", false),
    ] {
        assert_eq!(line_names(line, path), is, "{line} {path}");
    }
}
