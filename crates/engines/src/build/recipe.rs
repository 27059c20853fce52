use std::path::PathBuf;

/// What is built, from what. Everything is pinned: the same recipe gives the same program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecipe {
    /// Folder name of the result.
    pub key: String,
    /// The source package and its version in the Python package index.
    pub package: (String, String),
    /// SHA-256 of the source package, lower-case hex.
    pub sha256: String,
    /// Folder of the CMake project inside the package.
    pub project: String,
    /// Upstream build number that the program must report.
    pub build_number: u32,
    /// Pinned versions of the build tools from the same index.
    pub tools: Vec<(String, String)>,
    /// A source archive already on this machine, instead of fetching the package.
    pub archive: Option<PathBuf>,
    /// A folder that has `cmake` and `ninja`, instead of a Python environment.
    pub tools_dir: Option<PathBuf>,
    /// Disk space a build from nothing needs.
    pub need_bytes: u64,
}

impl BuildRecipe {
    /// The engine this release is tested with: llama.cpp b11549 for the processor, from the newest small source package
    /// that has the server (engine guide 1).
    pub fn pinned() -> Self {
        Self {
            key: "b11549-cpu".into(),
            package: ("xllamacpp".into(), "2026.10.11549".into()),
            sha256: "c17ee1163006f70726abb9f72137830818f3d8cb60bfc34cb232d08428eaa22b".into(),
            project: "thirdparty/llama.cpp".into(),
            build_number: 11549,
            tools: vec![("cmake".into(), "4.4.4".into()), ("ninja".into(), "1.13.2".into())],
            archive: None,
            tools_dir: None,
            need_bytes: 2 << 30,
        }
    }

    /// Arguments for configuring. Whatever would fetch something or builds more than the server is off; without OpenSSL
    /// headers the server lacks HTTPS, which a loopback child never uses.
    pub(super) fn configure(&self, openssl: bool) -> Vec<String> {
        let mut args: Vec<String> = [
            "-GNinja",
            "-DCMAKE_BUILD_TYPE=Release",
            // Not for this very processor: a cache may move with a disk, and the default needs only AVX2.
            "-DGGML_NATIVE=OFF",
            "-DBUILD_SHARED_LIBS=OFF",
            "-DLLAMA_BUILD_TESTS=OFF",
            "-DLLAMA_BUILD_EXAMPLES=OFF",
            "-DLLAMA_BUILD_TOOLS=ON",
            "-DLLAMA_BUILD_SERVER=ON",
            "-DLLAMA_BUILD_APP=OFF",
            "-DLLAMA_BUILD_UI=OFF",
            "-DLLAMA_USE_PREBUILT_UI=OFF",
        ]
        .map(str::to_owned)
        .into();
        args.push(format!("-DLLAMA_OPENSSL={}", if openssl { "ON" } else { "OFF" }));
        // The package has no version control data to take these from.
        args.push(format!("-DLLAMA_BUILD_NUMBER={}", self.build_number));
        args.push(format!("-DLLAMA_BUILD_COMMIT={}-{}", self.package.0, self.package.1));
        args
    }
}
