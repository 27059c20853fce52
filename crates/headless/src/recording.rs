//! Recordings as they are sent: a form (multipart/form-data) whose file is read while it goes out.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use indicatif::ProgressBar;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::client::Content;
use crate::failure::Failure;

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Where a recording comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recording {
    /// A file.
    File(PathBuf),
    /// Whatever is piped in.
    Stdin,
}

impl Recording {
    /// By the name of the command line. Says so at once when there is no such file.
    pub(crate) fn named(name: &Path) -> Result<Self, Failure> {
        if name.as_os_str() == "-" {
            return Ok(Self::Stdin);
        }
        let found = std::fs::metadata(name).map_err(|error| Failure::new(format!("{}: {error}", name.display())))?;
        if found.is_dir() {
            return Err(Failure::new(format!("{} is a folder", name.display())));
        }
        Ok(Self::File(name.to_owned()))
    }

    /// For people and for the form.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }

    /// The form with these fields and the recording. The bar, if it is shown, counts the bytes that have gone out.
    pub(crate) async fn form(&self, fields: &[(&str, &str)], bar: &ProgressBar) -> io::Result<Content> {
        let (source, length, name): (Box<dyn AsyncRead + Send + Unpin>, _, _) = match self {
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                let length = file.metadata().await?.len();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // What is appended meanwhile is not part of it.
                (Box::new(file.take(length)), Some(length), name)
            }
            Self::Stdin => (Box::new(tokio::io::stdin()), None, "stdin".to_owned()),
        };
        let boundary = boundary();
        let (head, tail) = frame(&boundary, fields, &name);
        let length = length.map(|length| length + (head.len() + tail.len()) as u64);
        if let Some(length) = length {
            bar.set_length(length);
        }
        let out = Outgoing {
            head: Some(head),
            source: Some(source),
            tail: Some(tail),
        };
        let bar = bar.clone();
        let pieces = stream::try_unfold(out, move |mut out| {
            let bar = bar.clone();
            async move {
                let piece = out.piece().await?;
                bar.inc(piece.as_ref().map_or(0, |piece| piece.len() as u64));
                Ok::<_, io::Error>(piece.map(|piece| (Frame::data(piece), out)))
            }
        });
        Ok(Content {
            kind: format!("multipart/form-data; boundary={boundary}"),
            length,
            body: StreamBody::new(pieces).boxed_unsync(),
        })
    }
}

/// What is still to be sent.
struct Outgoing {
    head: Option<Bytes>,
    source: Option<Box<dyn AsyncRead + Send + Unpin>>,
    tail: Option<Bytes>,
}

impl Outgoing {
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if let Some(source) = &mut self.source {
            let mut buffer = BytesMut::with_capacity(PIECE);
            if source.read_buf(&mut buffer).await? > 0 {
                return Ok(Some(buffer.freeze()));
            }
            self.source = None;
        }
        Ok(self.tail.take())
    }
}

/// A line that occurs in no recording: time and process make it different from every other.
fn boundary() -> String {
    let time = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
    format!("llama-runner-{time:x}-{:x}", std::process::id())
}

/// What comes before the recording and after it.
fn frame(boundary: &str, fields: &[(&str, &str)], file: &str) -> (Bytes, Bytes) {
    let mut head = String::new();
    for (name, value) in fields {
        let part = [
            "--",
            boundary,
            "\r\nContent-Disposition: form-data; name=\"",
            name,
            "\"\r\n\r\n",
            value,
            "\r\n",
        ];
        head.extend(part);
    }
    let file = file.replace('"', "%22").replace(['\r', '\n'], " ");
    let part = [
        "--",
        boundary,
        "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"",
        &file,
        "\"\r\nContent-Type: application/octet-stream\r\n\r\n",
    ];
    head.extend(part);
    (head.into(), format!("\r\n--{boundary}--\r\n").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_form_has_its_fields_and_the_file_and_knows_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a\"b.wav");
        let sound = vec![7; 3 * PIECE + 1];
        std::fs::write(&path, &sound).unwrap();
        let recording = Recording::named(&path).unwrap();
        let fields = [("model", "m"), ("prompt", "é\r\n--x")];
        let content = recording.form(&fields, &ProgressBar::hidden()).await.unwrap();
        let boundary = content.kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\né\r\n--x\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%22b.wav\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let wanted = [head.as_bytes(), &sound, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
        let length = content.length;
        let sent = content.body.collect().await.unwrap().to_bytes();
        assert_eq!(sent, wanted);
        assert_eq!(length, Some(wanted.len() as u64));
    }

    #[test]
    fn files_that_cannot_be_sent_are_named() {
        assert_eq!(Recording::named(Path::new("-")).unwrap(), Recording::Stdin);
        for name in ["/none/x.wav", "/"] {
            assert!(Recording::named(Path::new(name)).is_err(), "{name}");
        }
    }
}
