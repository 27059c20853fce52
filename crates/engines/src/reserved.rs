//! What configuration may not pass to an engine: promises S9 (arguments) and S10 (environment).

use crate::EngineError;

const OURS: &str = "LlamaRunner sets it itself";
const CONTEXT: &str = "set `context` and `parallel` instead, so that the number stays true per request";
const NETWORK: &str = "it opens or redirects network access";
const FILES: &str = "it writes files or serves files to callers";
const TOOLS: &str = "it lets the engine run tools or other programs";
const OTHER_MODEL: &str = "it picks or downloads another model; name files in `models.entries`";
const ENDS: &str = "the engine would print something and end";

/// Flags in every spelling llama-server has (b11549 `--help`, plus older names), without leading dashes for long ones.
const RESERVED: &[(&str, &[&str])] = &[
    (
        OURS,
        &[
            "-m",
            "--model",
            "-a",
            "--alias",
            "-mm",
            "--mmproj",
            "--embedding",
            "--embeddings",
            "--rerank",
            "--reranking",
            "--log-jsonl",
            "--no-log-jsonl",
            "--log-disable",
            "--log-colors",
            "--offline",
            "--ui",
            "--webui",
            "--no-ui",
            "--no-webui",
            "--slots",
            "--no-slots",
            "--props",
            "--metrics",
            "--task",
        ],
    ),
    (
        CONTEXT,
        &[
            "-c",
            "--ctx-size",
            "-np",
            "--parallel",
            "-kvu",
            "--kv-unified",
            "-nokvu",
            "-no-kvu",
            "--no-kv-unified",
            "--kv-unified-per-slot",
        ],
    ),
    (
        NETWORK,
        &[
            "--host",
            "--port",
            "--reuse-port",
            "--api-key",
            "--api-key-file",
            "--api-prefix",
            "--ssl-key-file",
            "--ssl-cert-file",
            "--cors-origins",
            "--cors-methods",
            "--cors-headers",
            "--cors-credentials",
            "--no-cors-credentials",
            "--rpc",
            "--ui-mcp-proxy",
            "--webui-mcp-proxy",
            "--no-ui-mcp-proxy",
            "--no-webui-mcp-proxy",
            "--hf-token",
            "-hft",
        ],
    ),
    (
        FILES,
        &[
            "--log-file",
            "--log-prompts-dir",
            "--slot-save-path",
            "--path",
            "--media-path",
            "--lookup-cache-dynamic",
            "-lcd",
            "--ui-config",
            "--webui-config",
            "--ui-config-file",
            "--webui-config-file",
            "--public-path",
        ],
    ),
    (
        TOOLS,
        &[
            "--tools",
            "--tools-runtime",
            "--mcp-servers-config",
            "--mcp-servers-json",
            "-ag",
            "--agent",
            "-no-ag",
            "--no-agent",
            "--video-ffmpeg-dir",
        ],
    ),
    (
        OTHER_MODEL,
        &[
            "-hf",
            "-hfr",
            "--hf-repo",
            "-hff",
            "--hf-file",
            "-hfd",
            "-hfrd",
            "--hf-repo-draft",
            "--spec-draft-hf",
            "-hfv",
            "-hfrv",
            "--hf-repo-v",
            "-hffv",
            "--hf-file-v",
            "-mu",
            "--model-url",
            "-dr",
            "--docker-repo",
            "-mmu",
            "--mmproj-url",
            "--mmproj-auto",
            "--models-dir",
            "--models-preset",
            "--models-max",
            "--models-autoload",
            "--no-models-autoload",
        ],
    ),
    (
        ENDS,
        &[
            "-h",
            "--help",
            "--usage",
            "--version",
            "-cl",
            "--cache-list",
            "--completion-bash",
            "--list-devices",
            "--license",
        ],
    ),
];

/// Families that grow with each release.
const RESERVED_PREFIXES: &[(&str, &str)] = &[
    ("--ssl-", NETWORK),
    ("--cors-", NETWORK),
    ("--api-key", NETWORK),
    ("--mcp-", TOOLS),
    ("--tools-", TOOLS),
    ("--hf-", OTHER_MODEL),
    ("--models-", OTHER_MODEL),
    ("--fim-", OTHER_MODEL),
    ("--gpt-oss-", OTHER_MODEL),
    ("--vision-", OTHER_MODEL),
    ("--embd-gemma-", OTHER_MODEL),
];

/// Refuses engine arguments that LlamaRunner sets itself or that write files, open sockets, or run tools (promise S9).
///
/// Every element that begins with `-` and is not a number is judged as a flag, wherever it stands: a flag in a value
/// position is refused with the flag.
///
/// # Errors
/// [`EngineError::ReservedFlag`] for the first one at fault.
pub fn reserved_flag(args: &[String]) -> Result<(), EngineError> {
    args.iter().try_for_each(|arg| match judge(arg) {
        Some(why) => Err(EngineError::ReservedFlag {
            flag: arg.chars().take(80).collect(),
            why,
        }),
        None => Ok(()),
    })
}

fn judge(arg: &str) -> Option<&'static str> {
    if arg.contains(['\0', '\n', '\r']) {
        return Some("it contains a control character");
    }
    if !arg.starts_with('-') || arg.parse::<f64>().is_ok() {
        return None;
    }
    let name = arg.split('=').next().unwrap_or(arg);
    // The engine reads `--a_b` as `--a-b`; upper case is never a flag of the kinds above, but costs nothing to catch in
    // the long ones. Short ones differ by case (`-c` context, `-C` processor mask).
    let name = if name.starts_with("--") {
        name.replace('_', "-").to_lowercase()
    } else {
        name.to_owned()
    };
    let listed = RESERVED
        .iter()
        .find(|(_, flags)| flags.contains(&name.as_str()))
        .map(|(why, _)| *why);
    listed.or_else(|| {
        RESERVED_PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map(|(_, why)| *why)
    })
}

const LOADER: &str = "it changes which code is loaded or run";
const ENGINE_SETTING: &str = "it is a setting of the engine; use the matching key or `args`";
const SECRET: &str = "it carries a credential";
const ROUTE: &str = "it redirects or intercepts network traffic";

/// Upper-case names; a trailing `*` stands for anything.
const ENV_RESERVED: &[(&str, &[&str])] = &[
    (
        LOADER,
        &[
            "LD_*",
            "DYLD_*",
            "PATH",
            "PATHEXT",
            "PYTHON*",
            "PERL5*",
            "RUBY*",
            "NODE_*",
            "JAVA_*",
            "BASH_*",
            "ENV",
            "IFS",
            "SHELL",
            "GCONV_PATH",
            "GLIBC_TUNABLES",
            "LOCPATH",
            "NLSPATH",
            "MALLOC_*",
            "GGML_BACKEND_*",
            "CUDA_INJECTION*",
            "NVTX_*",
            "VK_ICD_*",
            "VK_DRIVER_*",
            "VK_ADD_*",
            "VK_LAYER_*",
            "VK_INSTANCE_*",
            "VK_LOADER_*",
            "OCL_ICD_*",
            "OPENCL_*",
            "SYSTEMROOT",
            "COMSPEC",
            "OPENSSL_*",
        ],
    ),
    (
        ROUTE,
        &["SSL_*", "*_PROXY", "CURL_*", "REQUESTS_*", "RES_OPTIONS", "HOSTALIASES"],
    ),
    (SECRET, &["HF_*", "HUGGING*", "AWS_*", "GH_*", "GITHUB_*"]),
];

/// Never settable, not even by the owner of the config file: the engine would disagree with what we think it does.
const ENV_OURS: &[(&str, &[&str])] = &[
    (
        OURS,
        &[
            "LLAMA_API_KEY",
            "LLAMA_MEDIA_MARKER",
            "LLAMA_SERVER_*",
            "LLAMARUNNER_*",
            "LR_API_KEY",
            "LR_SIDECAR_TOKEN",
        ],
    ),
    (ENGINE_SETTING, &["LLAMA_ARG_*", "LLAMA_LOG_*", "AIP_*"]),
];

/// Refuses environment variables of loaders, interpreters, credentials and the engine's own settings (promise S10): for
/// values that come from a request or a model entry.
///
/// # Errors
/// [`EngineError::ReservedEnv`] for the first one at fault.
pub fn reserved_env(env: &[(String, String)]) -> Result<(), EngineError> {
    env.iter()
        .try_for_each(|(name, value)| check_env(name, value, &[ENV_OURS, ENV_RESERVED]))
}

/// The same for `engines.llama_server.env`: the owner of the config file may set loader paths and the like, but not what
/// LlamaRunner itself sets.
///
/// # Errors
/// [`EngineError::ReservedEnv`] for the first one at fault.
pub fn reserved_setting_env(env: &[(String, String)]) -> Result<(), EngineError> {
    env.iter()
        .try_for_each(|(name, value)| check_env(name, value, &[ENV_OURS]))
}

fn check_env(name: &str, value: &str, lists: &[&[(&'static str, &[&str])]]) -> Result<(), EngineError> {
    let fault = |why| {
        Err(EngineError::ReservedEnv {
            name: name.chars().take(80).collect(),
            why,
        })
    };
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts_well || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return fault("a name has letters, digits and underscores only");
    }
    if value.contains('\0') {
        return fault("its value contains a NUL character");
    }
    // Windows and some libraries (`http_proxy`) do not care for case.
    let upper = name.to_ascii_uppercase();
    let listed = lists
        .iter()
        .flat_map(|list| list.iter())
        .find(|(_, names)| names.iter().any(|n| matches(n, &upper)));
    listed.map_or(Ok(()), |(why, _)| fault(why))
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(tail), _) => name.ends_with(tail),
        (_, Some(head)) => name.starts_with(head),
        _ => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Result<(), EngineError> {
        reserved_flag(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments() {
        for allowed in [
            &[][..],
            &["--cache-ram", "512"],
            &["-ngl", "99", "-fa", "on"],
            &["--temp", "-1"],
            &["--temp", "-0.5e3"],
            &["-C", "ff"],
            &["--override-tensor", "exps=CPU"],
            &["--lora", "/a/b.gguf"],
            &["--no-warmup", "--spec-default"],
            &["--cache-type-k", "q8_0"],
        ] {
            assert!(flags(allowed).is_ok(), "{allowed:?}");
        }
        for refused in [
            &["--host", "0.0.0.0"][..],
            &["--host=0.0.0.0"],
            &["--HOST", "x"],
            &["--port", "1"],
            &["--api-key", "x"],
            &["--api_key_file", "x"],
            &["--api-key-anything-new", "x"],
            &["--ssl-key-file", "x"],
            &["--ssl-new-thing", "x"],
            &["--log-file", "/etc/passwd"],
            &["--log_file", "/etc/passwd"],
            &["--slot-save-path", "/"],
            &["--path", "/"],
            &["--media-path", "/"],
            &["--rpc", "1.2.3.4:5"],
            &["--models-dir", "/"],
            &["--hf-token", "x"],
            &["--tools", "all"],
            &["-ag"],
            &["--mcp-servers-json", "{}"],
            &["-m", "/other.gguf"],
            &["-hf", "a/b"],
            &["-mu", "x"],
            &["-c", "1"],
            &["-np", "64"],
            &["--kv-unified"],
            &["--help"],
            &["--temp", "--host", "0.0.0.0"],
            &["--alias", "x"],
            &["--task=speak"],
            &["--chat-template", "a\nb"],
            &["x\0y"],
            &["--fim-qwen-7b-default"],
        ] {
            let error = flags(refused).unwrap_err();
            assert!(matches!(error, EngineError::ReservedFlag { .. }), "{refused:?}");
        }
        let message = flags(&["-ngl", "3", "--host", "::"]).unwrap_err().to_string();
        assert_eq!(
            message,
            "The engine argument '--host' is not allowed: it opens or redirects network access."
        );
    }

    #[test]
    fn environment() {
        // (name, value, allowed for a model entry, allowed for the engine settings)
        for (name, value, model, setting) in [
            ("CUDA_VISIBLE_DEVICES", "1", true, true),
            ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "1", true, true),
            ("OMP_NUM_THREADS", "4", true, true),
            ("STUB_TOKEN_RATE", "4", true, true),
            ("LD_LIBRARY_PATH", "/opt/cuda", false, true),
            ("ld_preload", "x", false, true),
            ("DYLD_INSERT_LIBRARIES", "x", false, true),
            ("PATH", "/x", false, true),
            ("Path", "/x", false, true),
            ("PYTHONPATH", "x", false, true),
            ("GGML_BACKEND_PATH", "x", false, true),
            ("SSL_CERT_FILE", "x", false, true),
            ("https_proxy", "x", false, true),
            ("HF_TOKEN", "x", false, true),
            ("VK_ICD_FILENAMES", "x", false, true),
            ("LLAMA_ARG_HOST", "0.0.0.0", false, false),
            ("LLAMA_API_KEY", "x", false, false),
            ("LR_SIDECAR_TOKEN", "x", false, false),
            ("LLAMA_SERVER_ROUTER_PORT", "x", false, false),
            ("LLAMA_MEDIA_MARKER", "x", false, false),
            ("llama_server_child_mode", "download", false, false),
            ("AIP_MODE", "x", false, false),
            ("LLAMARUNNER_INSTANCE_TAG", "x", false, false),
            ("", "x", false, false),
            ("1A", "x", false, false),
            ("A=B", "x", false, false),
            ("A B", "x", false, false),
            ("A\0", "x", false, false),
            ("Ä", "x", false, false),
            ("FINE", "a\0b", false, false),
        ] {
            let pair = [(name.to_owned(), value.to_owned())];
            assert_eq!(reserved_env(&pair).is_ok(), model, "{name} for a model");
            assert_eq!(reserved_setting_env(&pair).is_ok(), setting, "{name} for the settings");
        }
    }
}
