//! Frames: one JSON object each (contract 10.2, 10.3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::WireError;

/// Longest client identifier and passkey, in characters.
const MAX_CREDENTIAL: usize = 256;

/// The first frame of a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Always 1 so far.
    pub auth_version: u64,
    /// Who: one client may have several sockets.
    pub client_identifier: String,
    /// What binds the identifier to it.
    pub client_passkey: String,
}

/// Reads the first frame; `None` when it is not a valid one, which is then ignored.
pub fn parse_auth(text: &str) -> Option<Auth> {
    let auth: Auth = serde_json::from_str(text).ok()?;
    let short = |credential: &str| credential.chars().count() <= MAX_CREDENTIAL;
    (auth.auth_version == 1 && short(&auth.client_identifier) && short(&auth.client_passkey)).then_some(auth)
}

/// The answer to a good first frame.
pub fn auth_success() -> String {
    r#"{"success":true}"#.to_owned()
}

/// The answer to a refused first frame; the socket is closed after it.
pub fn auth_refused(error: &str) -> String {
    json!({"success": false, "error": error}).to_string()
}

/// A frame after the handshake. Ids are the client's; calls and channels may share numbers.
#[derive(Debug)]
pub enum ClientFrame<'a> {
    /// A call that gets one result.
    RpcCall {
        /// What.
        endpoint: Cow<'a, str>,
        /// The client's number.
        call_id: i64,
        /// Absent when the endpoint takes none.
        parameter: Option<&'a RawValue>,
    },
    /// A conversation of its own.
    ChannelCreate {
        /// What.
        endpoint: Cow<'a, str>,
        /// The client's number.
        channel_id: i64,
        /// Absent when the endpoint takes none.
        parameter: Option<&'a RawValue>,
    },
    /// A message on a channel.
    ChannelSend {
        /// Which.
        channel_id: i64,
        /// The `type` of the message.
        kind: String,
        /// The client wants to know that it came.
        ack_id: Option<i64>,
    },
    /// The client got a message of ours.
    ChannelAck,
    /// Signals: only plugins and LM Studio's window use them.
    SignalSubscribe {
        /// The client's number.
        subscribe_id: i64,
        /// A signal that the client could also write.
        writable: bool,
    },
    /// An end or an update of a signal that was refused.
    SignalOther,
    /// Is the server there?
    KeepAlive,
    /// The client could not understand a message of ours.
    CommunicationWarning {
        /// Its words.
        warning: String,
    },
    /// Not a frame of the protocol.
    Unknown {
        /// Its `type`, if it has one.
        kind: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flat<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    endpoint: Option<Cow<'a, str>>,
    #[serde(default)]
    call_id: Option<i64>,
    #[serde(default)]
    channel_id: Option<i64>,
    #[serde(default)]
    subscribe_id: Option<i64>,
    #[serde(default)]
    ack_id: Option<i64>,
    #[serde(borrow, default)]
    parameter: Option<&'a RawValue>,
    #[serde(borrow, default)]
    creation_parameter: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(default)]
    warning: Option<String>,
}

#[derive(Deserialize)]
struct MessageKind {
    #[serde(rename = "type", default)]
    kind: String,
}

impl<'a> ClientFrame<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// A sentence for the warning when it is no frame at all.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let flat: Flat<'a> =
            serde_json::from_str(text).map_err(|error| format!("Received a message that is not a frame: {error}"))?;
        let missing = |what: &str| format!("Received {} without {what}", flat.kind);
        let kind = &*flat.kind;
        Ok(match kind {
            "rpcCall" => Self::RpcCall {
                call_id: flat.call_id.ok_or_else(|| missing("callId"))?,
                endpoint: flat.endpoint.clone().ok_or_else(|| missing("endpoint"))?,
                parameter: flat.parameter,
            },
            "channelCreate" => Self::ChannelCreate {
                channel_id: flat.channel_id.ok_or_else(|| missing("channelId"))?,
                endpoint: flat.endpoint.clone().ok_or_else(|| missing("endpoint"))?,
                parameter: flat.creation_parameter,
            },
            "channelSend" => Self::ChannelSend {
                channel_id: flat.channel_id.ok_or_else(|| missing("channelId"))?,
                kind: flat
                    .message
                    .and_then(|message| serde_json::from_str::<MessageKind>(message.get()).ok())
                    .map(|message| message.kind)
                    .unwrap_or_default(),
                ack_id: flat.ack_id,
            },
            "channelAck" => Self::ChannelAck,
            "signalSubscribe" | "writableSignalSubscribe" => Self::SignalSubscribe {
                subscribe_id: flat.subscribe_id.ok_or_else(|| missing("subscribeId"))?,
                writable: kind != "signalSubscribe",
            },
            "signalUnsubscribe" | "writableSignalUnsubscribe" | "writableSignalUpdate" => Self::SignalOther,
            "keepAlive" => Self::KeepAlive,
            "communicationWarning" => Self::CommunicationWarning {
                warning: flat.warning.unwrap_or_default(),
            },
            _ => Self::Unknown { kind: kind.to_owned() },
        })
    }
}

/// The result of a call; `None`: it has none.
pub fn rpc_result<T: Serialize + ?Sized>(call_id: i64, result: Option<&T>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a, T: ?Sized> {
        r#type: &'static str,
        call_id: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a T>,
    }
    text(&Frame {
        r#type: "rpcResult",
        call_id,
        result,
    })
}

/// The failure of a call.
pub fn rpc_error(call_id: i64, error: &WireError) -> String {
    text(&json!({"type": "rpcError", "callId": call_id, "error": error.value()}))
}

/// A message on a channel.
pub fn channel_send<T: Serialize + ?Sized>(channel_id: i64, message: &T) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a, T: ?Sized> {
        r#type: &'static str,
        channel_id: i64,
        message: &'a T,
    }
    text(&Frame {
        r#type: "channelSend",
        channel_id,
        message,
    })
}

/// The normal end of a channel.
pub fn channel_close(channel_id: i64) -> String {
    format!(r#"{{"type":"channelClose","channelId":{channel_id}}}"#)
}

/// The abnormal end of a channel.
pub fn channel_error(channel_id: i64, error: &WireError) -> String {
    text(&json!({"type": "channelError", "channelId": channel_id, "error": error.value()}))
}

/// The client's message came.
pub fn channel_ack(channel_id: i64, ack_id: i64) -> String {
    format!(r#"{{"type":"channelAck","channelId":{channel_id},"ackId":{ack_id}}}"#)
}

/// A signal cannot be had.
pub fn signal_error(subscribe_id: i64, error: &WireError) -> String {
    text(&json!({"type": "signalError", "subscribeId": subscribe_id, "error": error.value()}))
}

/// [`signal_error`] for a signal that can be written.
pub fn writable_signal_error(subscribe_id: i64, error: &WireError) -> String {
    text(&json!({"type": "writableSignalError", "subscribeId": subscribe_id, "error": error.value()}))
}

/// We are there.
pub fn keep_alive_ack() -> String {
    r#"{"type":"keepAliveAck"}"#.to_owned()
}

/// We could not understand a frame.
pub fn warning(words: &str, kind: Option<&str>) -> String {
    let mut frame = json!({"type": "communicationWarning", "warning": words});
    if let Some(kind) = kind {
        frame["kind"] = kind.into();
    }
    text(&frame)
}

/// Frames have no way to fail (no maps with keys that are not strings).
fn text<T: Serialize>(frame: &T) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake() {
        let good = r#"{"authVersion":1,"clientIdentifier":"guest:a","clientPasskey":"b"}"#;
        assert_eq!(parse_auth(good).unwrap().client_identifier, "guest:a");
        let long = format!(
            r#"{{"authVersion":1,"clientIdentifier":"{}","clientPasskey":"b"}}"#,
            "x".repeat(257)
        );
        let other = good.replace(":1,", ":2,");
        for bad in ["", "{}", "[1]", "null", &long, &other, r#"{"type":"keepAlive"}"#] {
            assert_eq!(parse_auth(bad), None, "{bad}");
        }
        assert_eq!(auth_refused("no \"way\""), r#"{"success":false,"error":"no \"way\""}"#);
    }

    #[test]
    fn frames_of_a_client() {
        let parse = |text| format!("{:?}", ClientFrame::parse(text));
        for (text, expected) in [
            (r#"{"type":"keepAlive"}"#, "Ok(KeepAlive)"),
            (
                r#"{"type":"rpcCall","endpoint":"a","callId":0}"#,
                r#"Ok(RpcCall { endpoint: "a", call_id: 0, parameter: None })"#,
            ),
            (
                r#"{"type":"channelSend","channelId":3,"message":{"type":"cancel"},"ackId":1}"#,
                r#"Ok(ChannelSend { channel_id: 3, kind: "cancel", ack_id: Some(1) })"#,
            ),
            (
                r#"{"type":"channelSend","channelId":3,"message":5}"#,
                r#"Ok(ChannelSend { channel_id: 3, kind: "", ack_id: None })"#,
            ),
            (
                r#"{"type":"rpcCall","callId":0}"#,
                r#"Err("Received rpcCall without endpoint")"#,
            ),
            (r#"{"type":"nonsense"}"#, r#"Ok(Unknown { kind: "nonsense" })"#),
            (
                r#"{"type":"signalSubscribe","subscribeId":1}"#,
                "Ok(SignalSubscribe { subscribe_id: 1, writable: false })",
            ),
        ] {
            assert_eq!(parse(text), expected);
        }
        for bad in ["", "5", "{}", "{\"type\":1}", &"[".repeat(100_000)] {
            assert!(ClientFrame::parse(bad).is_err());
        }
    }
}
