//! llama-server's command line, as far as a supervisor can tell the difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Every flag of the real engine, one option per line as `--help` lists it; a last word without a dash is its value.
const FLAGS: &str = include_str!("flags.txt");

const VERSION: &str = "version: 0.6.0-dev (build 11549, commit stub)\nbuilt with stub-engine for Linux x86_64\n";

pub(crate) enum Parsed {
    Run(Options),
    /// Text for stdout and for stderr; exit code 0.
    Print(String, String),
}

/// What the stub does with its flags; all others are accepted and ignored.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) model: String,
    pub(crate) alias: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) context: u32,
    pub(crate) parallel: u32,
    pub(crate) embeddings: bool,
    pub(crate) reranking: bool,
    pub(crate) metrics: bool,
    pub(crate) slots: bool,
    pub(crate) jsonl: bool,
    pub(crate) api_keys: Vec<String>,
    /// Environment `LLAMA_SERVER_ROUTER_PORT`: talks to a router over stdin and stdout.
    pub(crate) child_mode: bool,
}

/// First name on each line is the canonical one.
fn flag_table() -> BTreeMap<&'static str, (&'static str, bool)> {
    let mut table = BTreeMap::new();
    for line in FLAGS.lines() {
        let names: Vec<&str> = line.split([',', ' ']).filter(|word| word.starts_with('-')).collect();
        let takes_value = line
            .rsplit([',', ' '])
            .next()
            .is_some_and(|word| !word.is_empty() && !word.starts_with('-'));
        for name in &names {
            table.insert(*name, (names[names.len() - 1], takes_value));
        }
    }
    table
}

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let table = flag_table();
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let mut switches: Vec<String> = Vec::new();
    let mut args = args;
    while let Some(arg) = args.next() {
        let Some(&(canonical, takes_value)) = table.get(arg.as_str()) else {
            return Err(format!("error: invalid argument: {arg}\n"));
        };
        match arg.as_str() {
            "-h" | "--help" | "--usage" => return Ok(Parsed::Print(help(), String::new())),
            "--version" => return Ok(Parsed::Print(String::new(), VERSION.to_owned())),
            "--list-devices" => {
                return Ok(Parsed::Print(
                    "Available devices:\n  (none)\n".to_owned(),
                    String::new(),
                ));
            }
            _ if takes_value => {
                let value = args.next().ok_or_else(|| {
                    format!("error while handling argument \"{arg}\": expected value for argument\n\nusage:\n")
                })?;
                values.insert(canonical, value);
            }
            _ => switches.push(arg),
        }
    }
    let on = |names: &[&str]| switches.iter().any(|switch| names.contains(&switch.as_str()));
    let number = |name: &str, default: u32| match values.get(name) {
        Some(text) => text
            .parse()
            .map_err(|_| format!("error while handling argument \"{name}\": stoi\n")),
        None => Ok(default),
    };
    let model = values.get("--model").cloned().unwrap_or_default();
    let mut api_keys: Vec<String> = values.get("--api-key").map(|keys| split_keys(keys)).unwrap_or_default();
    if let Ok(keys) = std::env::var("LLAMA_API_KEY") {
        api_keys.extend(split_keys(&keys));
    }
    if let Some(file) = values.get("--api-key-file") {
        let text = std::fs::read_to_string(file).map_err(|_| format!("error: failed to open file '{file}'\n"))?;
        api_keys.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
    }
    Ok(Parsed::Run(Options {
        alias: values.get("--alias").cloned().unwrap_or_else(|| model.clone()),
        model,
        host: values.get("--host").cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
        port: u16::try_from(number("--port", 9931)?).map_err(|_| "error: bad port\n".to_owned())?,
        context: number("--ctx-size", 0)?,
        parallel: match values.get("--parallel").map(String::as_str) {
            None | Some("-1") => 4,
            Some(text) => text
                .parse()
                .map_err(|_| "error while handling argument \"-np\": stoi\n".to_owned())?,
        },
        embeddings: on(&["--embedding", "--embeddings"]),
        reranking: on(&["--rerank", "--reranking"]),
        metrics: on(&["--metrics"]),
        slots: !on(&["--no-slots"]),
        jsonl: on(&["--log-jsonl"]),
        api_keys,
        child_mode: std::env::var_os("LLAMA_SERVER_ROUTER_PORT").is_some(),
    }))
}

fn split_keys(keys: &str) -> Vec<String> {
    keys.split(',')
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

fn help() -> String {
    let mut help = String::new();
    for line in FLAGS.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(help, "{line:<39} (stub)");
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Options {
        match parse(args.iter().map(|arg| (*arg).to_owned())) {
            Ok(Parsed::Run(options)) => options,
            Ok(Parsed::Print(..)) => panic!("printed"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn start_recipe_is_accepted() {
        let options = run(&[
            "-m",
            "x.gguf",
            "--alias",
            "a",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--log-jsonl",
            "--no-ui",
            "--cors-origins",
            "localhost",
            "--metrics",
            "-np",
            "2",
            "--kv-unified",
            "-c",
            "512",
            "--cache-ram",
            "16",
            "--offline",
            "--embeddings",
            "--no-slots",
            "-ngl",
            "99",
        ]);
        assert_eq!(
            (options.model.as_str(), options.alias.as_str(), options.port),
            ("x.gguf", "a", 0)
        );
        assert_eq!((options.context, options.parallel), (512, 2));
        assert!(options.jsonl && options.metrics && options.embeddings && !options.slots && !options.reranking);
    }

    #[test]
    fn refusals_read_like_the_real_ones() {
        let error = |args: &[&str]| parse(args.iter().map(|arg| (*arg).to_owned())).err().unwrap();
        assert_eq!(error(&["--foo"]), "error: invalid argument: --foo\n");
        assert!(error(&["--ctx-size"]).starts_with("error while handling argument \"--ctx-size\": expected value"));
    }
}
