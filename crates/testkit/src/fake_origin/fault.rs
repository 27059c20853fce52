use serde::Deserialize;

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginFault {
    /// The connection breaks after so many bytes of the body.
    Cut {
        /// Bytes that still arrive.
        after: u64,
    },
    /// Nothing more comes after so many bytes of the body; the connection stays open.
    Stall {
        /// Bytes that still arrive.
        after: u64,
    },
    /// The body comes at this speed.
    Slow {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// 206 whose `Content-Range` (and bytes) begin one byte before what was asked; from byte 0: one byte after.
    WrongContentRange,
    /// A range is answered with 200 and everything.
    IgnoreRange,
    /// The body, and `Content-Length` with it, is so many bytes too long.
    LongBody {
        /// Bytes too many.
        extra: u64,
    },
    /// The body, and `Content-Length` with it, is so many bytes too short.
    ShortBody {
        /// Bytes missing.
        missing: u64,
    },
    /// `Content-Length` says this much more (or less) than there is.
    WrongContentLength {
        /// Added to the true length.
        off_by: i64,
    },
    /// Another strong `ETag` with every answer.
    NewEtag,
    /// A weak `ETag`.
    WeakEtag,
    /// No `ETag`.
    NoEtag,
    /// One bit of one byte of the file is wrong.
    FlipByte {
        /// Offset in the file.
        at: u64,
    },
    /// 200 with an HTML page that asks for a login.
    LoginPage,
    /// This status instead of an answer.
    Status {
        /// HTTP status.
        status: u16,
        /// `Retry-After`, as it is sent.
        #[serde(default)]
        retry_after: Option<String>,
        /// Body, as text.
        #[serde(default)]
        body: String,
    },
    /// 401 with `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`.
    Unauthorized {
        /// Where tokens are to be had.
        realm: String,
    },
    /// A redirect.
    Redirect {
        /// HTTP status, 301 to 308.
        status: u16,
        /// `Location`.
        to: String,
    },
    /// The connection breaks before the answer.
    Drop,
}

impl OriginFault {
    /// Acts on the bytes of a file, wherever those are served.
    pub(super) fn is_of_body(&self) -> bool {
        match self {
            Self::LoginPage | Self::Status { .. } | Self::Unauthorized { .. } | Self::Redirect { .. } | Self::Drop => {
                false
            }
            Self::Cut { .. }
            | Self::Stall { .. }
            | Self::Slow { .. }
            | Self::WrongContentRange
            | Self::IgnoreRange
            | Self::LongBody { .. }
            | Self::ShortBody { .. }
            | Self::WrongContentLength { .. }
            | Self::NewEtag
            | Self::WeakEtag
            | Self::NoEtag
            | Self::FlipByte { .. } => true,
        }
    }
}

#[derive(Debug)]
struct Planned {
    path: String,
    left: Option<u32>,
    fault: OriginFault,
}

/// The faults planned, in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Planned>);

impl Faults {
    pub(super) fn add(&mut self, path: &str, left: Option<u32>, fault: OriginFault) {
        self.0.push(Planned {
            path: path.to_owned(),
            left,
            fault,
        });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The first fault instead of an answer.
    pub(super) fn instead(&mut self, path: &str) -> Option<OriginFault> {
        let planned = self.0.iter_mut().find(|planned| planned.hits(path, false))?;
        planned.take();
        Some(planned.fault.clone())
    }

    /// All faults of the bytes served: several may come together, as a slow body that is cut.
    pub(super) fn of_body(&mut self, path: &str) -> Vec<OriginFault> {
        let mut faults = Vec::new();
        for planned in self.0.iter_mut().filter(|planned| planned.hits(path, true)) {
            planned.take();
            faults.push(planned.fault.clone());
        }
        faults
    }
}

impl Planned {
    fn hits(&self, path: &str, of_body: bool) -> bool {
        self.left != Some(0) && self.fault.is_of_body() == of_body && path.contains(&self.path)
    }

    fn take(&mut self) {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
    }
}
