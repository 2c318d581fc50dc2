//! `watch`, and what it tells of: paths, logs, webhooks and programs that fail.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

/// Longer than any of these tests waits.
const PATIENCE: Duration = Duration::from_secs(120);

fn watch(folder: &Path, args: &[&str]) -> Ran {
    let args = [&["watch"], args].concat();
    let output = command(folder).args(&args).timeout(PATIENCE).output().expect("the binary starts");
    check(output.status.code(), &output.stdout, &output.stderr, &args)
}

/// `watch` while it watches.
struct Watching {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Watching {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tamegrad"))
            .arg("watch")
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (stdout, stderr) =
            (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        Self { stdout: lines(stdout), stderr: lines(stderr), child }
    }

    /// Waits for a line of the standard output that contains something.
    fn wait_for(&self, wanted: &str) {
        wait_for(&self.stdout, wanted);
    }

    /// Waits for a line of the standard error stream that contains something.
    fn wait_for_words(&self, wanted: &str) {
        wait_for(&self.stderr, wanted);
    }

    /// Its exit code, and what it said that nobody waited for.
    fn end(mut self) -> (Option<i32>, String) {
        let rest: Vec<String> = self.stderr.iter().collect();
        (self.child.wait().expect("its end").code(), rest.concat())
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = send.send(line + "\n");
        }
    });
    receive
}

fn wait_for(stream: &Receiver<String>, wanted: &str) {
    let mut seen = String::new();
    while let Ok(line) = stream.recv_timeout(PATIENCE) {
        seen += &line;
        if line.contains(wanted) {
            return;
        }
    }
    panic!("no {wanted:?} in\n{seen}");
}

fn server() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/secret", server.local_addr().expect("its address"));
    (server, url)
}

/// Reads a request up to the end of its body.
fn request(stream: &mut TcpStream) -> String {
    let (mut request, mut buffer) = (String::new(), [0; 4096]);
    while !request.ends_with('}') {
        let count = stream.read(&mut buffer).expect("the request");
        request.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    request
}

#[test]
fn what_is_no_log_is_said_and_exit_code_2() {
    let folder =
        folder(&[("junk.txt", "Nothing to see.\n"), ("a.wandb", "junk"), ("empty.csv", "")]);
    fs::write(folder.path().join("odd.jsonl"), unknown_jsonl()).expect("a file");
    fs::create_dir(folder.path().join("none")).expect("a folder");
    for (path, said) in [
        ("gone.csv", "gone.csv: does not exist yet; waiting for it\n"),
        ("gone/deep", "gone/deep: does not exist yet; waiting for it\n"),
        ("junk.txt", "got text that begins with \"Nothing to see.\""),
        ("empty.csv", "got an empty file"),
        ("none", "got a folder without a training log"),
        ("a.wandb", "want the header of a W&B run file"),
        ("odd.jsonl", "want a loss or a gradient norm"),
    ] {
        let ran = watch(folder.path(), &[path, "--idle", "0"]);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{path}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{path}: {}", ran.stderr);
        let last = ran.stderr.lines().last().expect("words");
        assert!(last.starts_with("error: ") && last.ends_with("; no longer watched"), "{last}");
    }
}

#[test]
fn a_log_that_disappears_is_said_and_exit_code_2() {
    let folder = folder(&[("log.jsonl", &unknown_jsonl())]);
    let watching = Watching::start(folder.path(), &["log.jsonl", "--idle", "5"]);
    watching.wait_for_words("want a loss or a gradient norm");
    fs::remove_file(folder.path().join("log.jsonl")).expect("it is there");
    watching.wait_for_words("log.jsonl: has disappeared");
    let (code, rest) = watching.end();
    assert_eq!(code, Some(2), "{rest}");
    assert!(rest.ends_with("error: log.jsonl: has disappeared; no longer watched\n"), "{rest}");
}

#[test]
fn what_is_well_in_the_end_is_exit_code_0() {
    let folder = folder(&[]);
    let watching = Watching::start(folder.path(), &["log.jsonl", "--idle", "5"]);
    watching.wait_for_words("does not exist yet");
    fs::write(folder.path().join("log.jsonl"), healthy_jsonl()).expect("a log");
    assert_eq!(watching.end(), (Some(0), String::new()));
}

#[test]
fn options_are_checked_before_watching_begins() {
    let folder = folder(&[("log.jsonl", &healthy_jsonl())]);
    for (args, said) in [
        (["--idle", "nan"], "got `nan`, want a number of seconds from 0 up"),
        (["--idle", "-1"], "got `-1`, want a number of seconds"),
        (["--idle", "inf"], "got `inf`, want a number of seconds"),
        (["--idle", "1e300"], "got `1e300`, want a number of seconds"),
        (["--webhook", "hooks.example.com"], "got `hooks.example.com`, want a URL such as"),
        (["--webhook", "file:///tmp/x"], "want a URL such as"),
        (["--webhook", "http://"], "want a URL such as"),
        (["--exec", "no-such-program-here"], "got `no-such-program-here`, want a program"),
        (["--exec", "sh -c 'open"], "want every quote closed"),
        (["--exec", ""], "got an empty command"),
        (["--map", "loss="], "got no name for `loss`"),
        (["--map", "lost=a"], "lost"),
    ] {
        let ran = watch(folder.path(), &[&["log.jsonl"][..], &args].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("watching"), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_server_that_is_silent_delays_no_other_alarm() {
    let folder = folder(&[("a.csv", &diverging_csv())]);
    let (server, url) = server();
    let watching = Watching::start(folder.path(), &[".", "--idle", "5", "--webhook", &url]);
    watching.wait_for("EXPLODING  ./a.csv");
    let (mut first, _) = server.accept().expect("a connection");
    request(&mut first);
    fs::write(folder.path().join("b.csv"), diverging_csv()).expect("a log");
    watching.wait_for("EXPLODING  ./b.csv");
    // The first post still waits for its answer.
    first.set_nonblocking(true).expect("it can be set");
    let kind = first.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::WouldBlock));
    let (mut second, _) = server.accept().expect("a connection");
    assert!(request(&mut second).contains("b.csv: exploding since step 400"));
    for stream in [&mut first, &mut second] {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an answer");
    }
    assert_eq!(watching.end(), (Some(1), "watching .; press Ctrl-C to stop\n".to_owned()));
}

#[test]
fn a_server_that_stays_silent_is_not_waited_for_at_the_end() {
    let folder = folder(&[("a.csv", &diverging_csv())]);
    let (server, url) = server();
    let ran = watch(folder.path(), &["a.csv", "--idle", "0", "--webhook", &url]);
    assert_eq!(ran.code, 1);
    let said = "error: the alarm could not be sent to the webhook at 127.0.0.1: ";
    assert_eq!(ran.stderr.matches(said).count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    drop(server);
}

#[test]
fn what_fails_is_posted_again_unless_the_server_refuses_it() {
    let folder = folder(&[("a.csv", &diverging_csv())]);
    let (server, url) = server();
    let answers = [
        "",
        "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ];
    let hook = std::thread::spawn(move || {
        answers.map(|answer| {
            let (mut stream, _) = server.accept().expect("a connection");
            let request = request(&mut stream);
            stream.write_all(answer.as_bytes()).expect("an answer");
            request.lines().last().expect("a body").to_owned()
        })
    });
    let ran = watch(folder.path(), &["a.csv", "--idle", "0", "--webhook", &url]);
    assert_eq!((ran.code, &*ran.stderr), (1, "watching a.csv; press Ctrl-C to stop\n"));
    let bodies = hook.join().expect("three requests");
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");

    let (server, url) = self::server();
    let hook = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a connection");
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        server
    });
    let ran = watch(folder.path(), &["a.csv", "--idle", "0", "--webhook", &url]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the webhook at 127.0.0.1: http status: 404"), "{}", ran.stderr);
    let server = hook.join().expect("one request");
    server.set_nonblocking(true).expect("it can be set");
    let kind = server.accept().map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(ErrorKind::WouldBlock), "no second try");
}

#[test]
fn a_program_is_run_without_a_shell() {
    let folder = folder(&[("a.csv", &diverging_csv())]);
    let ran = watch(folder.path(), &["a.csv", "--idle", "0", "--exec", "touch 'a b;' \"$HOME\" *"]);
    assert_eq!((ran.code, &*ran.stderr), (1, "watching a.csv; press Ctrl-C to stop\n"));
    for name in ["a b;", "$HOME", "*"] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    let ran = watch(folder.path(), &["a.csv", "--idle", "0", "--exec", "false"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("error: `false` failed: exit status: 1\n"), "{}", ran.stderr);
}

#[test]
fn a_program_that_waits_delays_no_other_alarm() {
    let folder = folder(&[("a.csv", &diverging_csv())]);
    // The first to come waits until a file is there, which is written when the second alarm is.
    let exec = "sh -c 'mkdir first 2>/dev/null || exit 0; until [ -e go ]; do sleep 0.05; done'";
    let watching = Watching::start(folder.path(), &[".", "--idle", "5", "--exec", exec]);
    watching.wait_for("EXPLODING  ./a.csv");
    fs::write(folder.path().join("b.csv"), diverging_csv()).expect("a log");
    watching.wait_for("EXPLODING  ./b.csv");
    fs::write(folder.path().join("go"), "").expect("a file");
    assert_eq!(watching.end(), (Some(1), "watching .; press Ctrl-C to stop\n".to_owned()));
}
