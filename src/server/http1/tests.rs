//! One connection as its client sees it, parked whenever it waits. How often it was shows in the hyper connections that were built for it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::server::socket::Socket;
use crate::tasks::spawn_here;

/// Tells when what hyper held is gone.
struct Token(UnboundedSender<()>);

impl Drop for Token {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// One connection and its client.
struct Rig {
    client: BufReader<UnixStream>,
    served: JoinHandle<Ended>,
    drain: Arc<Drain>,
    /// hyper connections that were built for it.
    built: Arc<AtomicUsize>,
    /// From each of them when it is gone, and how many have been.
    parked: UnboundedReceiver<()>,
    gone: usize,
}

const ALWAYS: Patience = Patience { header_timeout: Duration::from_secs(60), park_after: Duration::ZERO };

fn rig(patience: Patience) -> Rig {
    rig_under(&Pressure::default(), patience)
}

fn rig_under(pressure: &Pressure, patience: Patience) -> Rig {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (drain, built) = (Arc::new(Drain::default()), Arc::new(AtomicUsize::new(0)));
    let (gone, parked) = unbounded_channel();
    let (draining, counted, pressure) = (drain.clone(), built.clone(), pressure.clone());
    let served = spawn_here(async move {
        let requests = || {
            counted.fetch_add(1, Relaxed);
            let token = Arc::new(Token(gone.clone()));
            service_fn(move |request| {
                let token = token.clone();
                async move {
                    let answer = answer(request).await;
                    drop(token);
                    Ok(answer)
                }
            })
        };
        let mut builder = Builder::new();
        builder.max_buf_size(16 * 1024);
        serve(&builder, patience, &draining, &pressure, None, Box::new(Socket::unix(ours)), requests).await
    });
    Rig { client: BufReader::new(theirs), served, drain, built, parked, gone: 0 }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/body" => Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes())),
        "/large" => Response::new(Full::new(vec![b'x'; 1 << 20].into())),
        "/early" => {
            // The answer does not wait for the request's body.
            drop(spawn_here(async move { request.into_body().collect().await.map(drop) }));
            Response::new(Full::new("early".into()))
        }
        path => Response::new(Full::new(path.to_owned().into())),
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

impl Rig {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.client.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The status and the body of the next answer.
    async fn receive(&mut self) -> (String, Vec<u8>) {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            assert_ne!(soon(self.client.read_line(&mut head)).await.unwrap(), 0, "the end after {head:?}");
            if let Some(value) = head[start..].strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        soon(self.client.read_exact(&mut body)).await.unwrap();
        (head["HTTP/1.1 ".len()..][..3].to_owned(), body)
    }

    async fn expect(&mut self, body: &str) {
        let (status, received) = self.receive().await;
        assert_eq!((&*status, String::from_utf8_lossy(&received)), ("200", body.into()));
    }

    async fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        self.expect(path).await;
    }

    async fn until_parked(&mut self) {
        while self.gone < self.built.load(Relaxed) {
            soon(self.parked.recv()).await.unwrap();
            self.gone += 1;
        }
    }

    /// What still comes, and how the connection ended.
    async fn end(mut self) -> (String, Ended) {
        let mut rest = String::new();
        soon(self.client.read_to_string(&mut rest)).await.unwrap();
        (rest, soon(self.served).await.unwrap())
    }
}

#[tokio::test]
async fn a_connection_that_waits_is_parked_each_time_and_serves_on() {
    let mut rig = rig(ALWAYS);
    for number in 0..1000 {
        rig.get(&format!("/{number}")).await;
    }
    assert!(rig.built.load(Relaxed) >= 1000, "{:?}", rig.built);
    rig.until_parked().await;
    assert!(!rig.served.is_finished());
}

#[tokio::test]
async fn a_busy_connection_is_not_parked_and_a_silent_one_is() {
    let mut busy = rig(Patience { park_after: Duration::from_secs(15), ..ALWAYS });
    for _ in 0..100 {
        busy.get("/").await;
    }
    assert_eq!(busy.built.load(Relaxed), 1);

    let mut silent = rig(Patience { park_after: Duration::from_millis(10), ..ALWAYS });
    for _ in 0..3 {
        silent.get("/").await;
        silent.until_parked().await;
    }
}

#[tokio::test]
async fn where_memory_is_short_a_silent_connection_is_closed_instead() {
    let pressure = Pressure::default();
    let mut rig = rig_under(&pressure, ALWAYS);
    rig.get("/one").await;
    rig.until_parked().await;
    pressure.look(2, Some(1));
    rig.get("/two").await;
    let (rest, ended) = rig.end().await;
    assert_eq!(rest, "");
    assert!(matches!(ended, Ended::Done(Ok(()))), "{ended:?}");
}

#[tokio::test]
async fn where_memory_is_short_the_beginning_of_a_head_is_not_kept_either() {
    let pressure = Pressure::default();
    let mut rig = rig_under(&pressure, Patience { park_after: Duration::from_millis(10), ..ALWAYS });
    rig.get("/one").await;
    rig.send("GET /two HTTP/1.1\r\nHost: x\r\n").await;
    pressure.look(2, Some(1));
    let (rest, ended) = rig.end().await;
    assert_eq!(rest, "");
    assert!(matches!(ended, Ended::Overdue), "{ended:?}");
}

#[tokio::test]
async fn requests_come_in_any_pieces() {
    let mut rig = rig(ALWAYS);
    let requests = [
        "GET /one HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /two HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nthree",
        "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    ];
    let bodies = ["/one", "/two", "three", "four"];
    let all = requests.concat();
    // In two pieces, cut everywhere: what is complete is answered before the rest comes.
    for cut in 1..all.len() {
        let complete = (1..=4).filter(|count| requests[..*count].concat().len() <= cut).count();
        rig.send(&all[..cut]).await;
        for body in &bodies[..complete] {
            rig.expect(body).await;
        }
        rig.send(&all[cut..]).await;
        for body in &bodies[complete..] {
            rig.expect(body).await;
        }
    }
    for byte in all.as_bytes() {
        rig.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    for body in bodies {
        rig.expect(body).await;
    }
}

#[tokio::test]
async fn an_answer_that_the_client_takes_late_arrives_whole() {
    let mut rig = rig(ALWAYS);
    for _ in 0..3 {
        rig.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (status, body) = rig.receive().await;
        assert_eq!((&*status, body.len()), ("200", 1 << 20));
        rig.expect("/next").await;
    }
}

#[tokio::test]
async fn a_body_that_still_comes_after_the_answer_is_no_silence() {
    let mut rig = rig(ALWAYS);
    rig.get("/").await;
    rig.until_parked().await;
    let before = rig.built.load(Relaxed);
    rig.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst").await;
    rig.expect("early").await;
    tokio::task::yield_now().await;
    assert_eq!(rig.built.load(Relaxed), before + 1);
    assert!(rig.parked.try_recv().is_err());
    rig.send("later").await;
    rig.until_parked().await;
    rig.get("/").await;
}

#[tokio::test]
async fn a_mistake_after_a_parking_is_answered() {
    for (mistake, status) in [
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)), "431"),
    ] {
        let mut rig = rig(ALWAYS);
        rig.get("/").await;
        rig.until_parked().await;
        rig.send(mistake).await;
        assert_eq!(rig.receive().await.0, status);
        let (rest, ended) = rig.end().await;
        assert_eq!(rest, "");
        assert!(matches!(ended, Ended::Done(Err(_))), "{ended:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_parked_is_gone() {
    let mut rig = rig(ALWAYS);
    rig.get("/").await;
    rig.until_parked().await;
    rig.client.shutdown().await.unwrap();
    let (rest, ended) = rig.end().await;
    assert_eq!(rest, "");
    assert!(matches!(ended, Ended::Done(Ok(()))), "{ended:?}");
}

#[tokio::test]
async fn a_drain_ends_a_parked_connection_after_a_last_call() {
    let mut rig = rig(ALWAYS);
    rig.get("/").await;
    rig.until_parked().await;
    rig.drain.begin();
    let (rest, ended) = rig.end().await;
    assert_eq!(rest, "");
    assert!(matches!(ended, Ended::Done(Ok(()))), "{ended:?}");
}

#[tokio::test]
async fn a_request_that_was_on_its_way_when_the_drain_began_is_answered() {
    for park_after in [Duration::ZERO, Duration::from_secs(60)] {
        let mut rig = rig(Patience { park_after, ..ALWAYS });
        rig.get("/").await;
        if park_after.is_zero() {
            rig.until_parked().await;
        }
        rig.drain.begin();
        rig.get("/late").await;
        rig.get("/later").await;
        let (rest, ended) = rig.end().await;
        assert_eq!(rest, "");
        assert!(matches!(ended, Ended::Done(Ok(()))), "{ended:?}");
    }
}

#[tokio::test]
async fn silence_and_slow_heads_have_one_time_limit_parked_or_not() {
    for park_after in [Duration::ZERO, Duration::from_millis(20), Duration::from_secs(60)] {
        for beginning in ["", "GET /", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut rig = rig(Patience { header_timeout: Duration::from_millis(200), park_after });
            rig.get("/").await;
            rig.send(beginning).await;
            let (rest, ended) = rig.end().await;
            assert_eq!(rest, "");
            assert!(matches!(ended, Ended::Overdue), "{park_after:?} {beginning:?} {ended:?}");
        }
    }
}

#[test]
fn two_looks_at_the_same_wait_make_it_idle_and_the_timeout_counts_from_the_first() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let drain = Drain::default();
        let patience = Patience { header_timeout: Duration::from_secs(30), park_after: Duration::from_millis(500) };
        let pressure = Pressure::default();
        let mut watch = Watch::new(patience, &drain, &pressure, None);
        let signs = watch.signs.clone();
        let start = watch.since;
        let mut look = |seconds: f32| watch.judge(start + Duration::from_secs_f32(seconds), true);
        let timer = HeadTimer::new(signs.clone(), start.into_std());
        drop(hyper::rt::Timer::sleep(&timer, Duration::ZERO));
        // An exchange is under way.
        assert_eq!([look(0.5), look(1.0)], [Seen::Busy, Seen::Busy]);
        // It is over; nothing has been written, so nothing is known to have left.
        let wait = hyper::rt::Timer::sleep(&timer, Duration::ZERO);
        assert_eq!([look(1.5), look(2.0), look(31.4)], [Seen::Busy, Seen::Busy, Seen::Busy]);
        assert_eq!(look(31.5), Seen::Overdue);
        // The next wait is another one.
        drop(wait);
        assert_eq!(signs.wait(), None);
        let _wait = hyper::rt::Timer::sleep(&timer, Duration::ZERO);
        assert_eq!([look(32.0), look(61.9), look(62.0)], [Seen::Busy, Seen::Busy, Seen::Overdue]);
    });
}
