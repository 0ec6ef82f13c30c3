//! What supervises the process: `check --live` for a container's health check, the notifications for systemd.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

const MINIMAL: &str = include_str!("../../config/minimal.toml");
/// No test takes so long; one that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

fn live(home: &Path, listen: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(["check", "--live"])
        .current_dir(home)
        .env_clear()
        .env("BEARERD_ADMIN__LISTEN", listen)
        .output()
        .expect("the binary runs");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
}

/// Takes one connection, keeps the request, and says `answer`; with none it stays silent until the client has gone.
fn admin_that_says(answer: Option<&'static str>) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).expect("the client listens"),
            None => drop(stream.read(&mut [0; 1024])),
        }
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (port, served)
}

#[test]
fn a_server_that_answers_is_live_whatever_else_the_configuration_says() {
    let home = tempfile::tempdir().expect("a directory");
    // Since the server started, somebody spoilt the file and removed a secret.
    let spoilt =
        "[server]\nlisten = 1\n[providers.entra]\nkind = \"entra\"\ncredentials = [{ secret_file = \"gone\" }]\n";
    std::fs::write(home.path().join("bearerd.toml"), spoilt).expect("a file");
    let (port, served) = admin_that_says(Some("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"));
    let said = live(home.path(), &format!("0.0.0.0:{port}"));
    assert_eq!(said, (Some(0), format!("live: 127.0.0.1:{port}\n")));
    let request = served.join().expect("no panic");
    assert!(request.starts_with("GET /livez HTTP/1.1\r\n") && request.contains("host: localhost\r\n"), "{request}");
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_not_live() {
    let home = tempfile::tempdir().expect("a directory");
    for (answer, why) in [
        (Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), "answered 503 Service Unavailable"),
        (Some("SSH-2.0-OpenSSH_9.2\r\n"), "error: not live"),
        (Some(""), "error: not live"),
        (None, "no answer within 2 s"),
    ] {
        let (port, served) = admin_that_says(answer);
        let (code, said) = live(home.path(), &format!("127.0.0.1:{port}"));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why) && said.contains(&format!("127.0.0.1:{port}/livez")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        served.join().expect("no panic");
    }
    let (code, said) = live(home.path(), "unix:/nowhere/admin.sock");
    assert_eq!(code, Some(1));
    assert!(said.contains("not live: unix:/nowhere/admin.sock/livez: No such file"), "{said}");
    assert_eq!(live(home.path(), "nonsense").0, Some(64));
}

#[test]
fn systemd_is_told_when_it_serves_and_when_it_stops() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("bearerd.toml"), MINIMAL).expect("a file");
    let supervisor = UnixDatagram::bind(home.path().join("notify")).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let told = || {
        let mut message = [0; 256];
        let length = supervisor.recv(&mut message).expect("a notification");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let [data, admin] = ["data.sock", "admin.sock"].map(|name| format!("unix:{}", home.path().join(name).display()));
    let mut server = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(["serve", "--set", &format!("server.listen={data}")])
        .current_dir(home.path())
        .env_clear()
        .env("NOTIFY_SOCKET", home.path().join("notify"))
        .env("BEARERD_ADMIN__LISTEN", &admin)
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    assert_eq!(told(), "READY=1\n");
    assert_eq!(live(home.path(), &admin), (Some(0), format!("live: {admin}\n")));
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(server.wait().expect("a status").code(), Some(0));
    assert_eq!(live(home.path(), &admin).0, Some(1));
}
