//! H7 over a real socket: one request in, one answer out, or 400 and a close.

use crate::harness::{Server, raw, statuses};

const HOST: &str = "Host: 127.0.0.1\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_is_refused() {
    let server = Server::plain().await;
    let smuggled = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "no colon\r\n",
        ": empty\r\n",
    ] {
        let request = format!("POST /api/show HTTP/1.1\r\n{HOST}{head}\r\n0\r\n\r\n{smuggled}");
        let answer = raw(server.ollama, request.as_bytes()).await;
        assert_eq!(statuses(&answer), [400], "{head:?}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_request_lines() {
    let server = Server::plain().await;
    for line in [
        "GET /health",
        "GET  /health HTTP/1.1",
        "GET /health HTTP/3.0",
        "get health",
        "\0",
        "GET /a b HTTP/1.1",
    ] {
        let answer = raw(server.ollama, format!("{line}\r\n{HOST}\r\n").as_bytes()).await;
        assert_eq!(statuses(&answer), [400], "{line:?}: {answer}");
    }
    let preface = raw(server.ollama, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!preface.contains(" 200 "), "{preface}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_faults_never_reach_a_second_request() {
    let server = Server::plain().await;
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "zz\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
    ] {
        let request = format!(
            "POST /api/show HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}GET /health HTTP/1.1\r\n{HOST}\r\n"
        );
        let answer = raw(server.ollama, request.as_bytes()).await;
        assert_eq!(statuses(&answer), [400], "{body:?}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_framing_is_answered_in_order() {
    let server = Server::plain().await;
    let pipeline = format!(
        "GET /api/version HTTP/1.1\r\n{HOST}\r\n\r\nPOST /api/show HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n\
         2;ext=1\r\n{{}}\r\n0\r\nTrailer: x\r\n\r\nPOST /api/nothing HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nbody\
         GET /health HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    );
    let answer = raw(server.ollama, pipeline.as_bytes()).await;
    assert_eq!(statuses(&answer), [200, 400, 404, 200], "{answer}");
    // The same bytes in the smallest pieces.
    let mut stream = tokio::net::TcpStream::connect(server.ollama).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in pipeline.as_bytes() {
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[*byte])
            .await
            .unwrap();
    }
    let answer = crate::harness::read_all(stream).await;
    assert_eq!(statuses(&answer), [200, 400, 404, 200], "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_request_before_a_bad_one_is_answered() {
    let server = Server::plain().await;
    let both = format!("GET /health HTTP/1.1\r\n{HOST}\r\nGET /health HTTP/1.1\r\n{HOST}X: y\n\r\n");
    assert_eq!(statuses(&raw(server.ollama, both.as_bytes()).await), [200, 400]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_heads_are_refused() {
    let server = Server::plain().await;
    let head = format!("GET /health HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(70_000));
    let answer = raw(server.ollama, head.as_bytes()).await;
    assert_eq!(statuses(&answer), [431], "{}", &answer[..answer.len().min(300)]);
    let many = "X-N: y\r\n".repeat(200);
    let answer = raw(
        server.ollama,
        format!("GET /health HTTP/1.1\r\n{HOST}{many}\r\n").as_bytes(),
    )
    .await;
    assert_eq!(statuses(&answer), [431], "{answer}");
    server.stop().await;
}
