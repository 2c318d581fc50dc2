//! Alarms on their way out, to a webhook or a program: each in a thread of its own, so that nobody has
//! to wait for it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::screen;

/// Deliveries at once; more wait for their turn.
const AT_ONCE: usize = 32;
/// How often the end of something is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a program may take.
const EXEC_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait at most for programs that are given up to be ended.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a webhook may take for an answer, and at the end of watching for all of its tries.
#[cfg(feature = "webhook")]
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before each further try.
#[cfg(feature = "webhook")]
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

type Work = Box<dyn FnOnce(&AtomicBool) -> Result<(), String> + Send>;

/// One delivery.
pub(crate) struct Delivery {
    /// What is said before the reason if it fails.
    failed: String,
    /// How long it may still take when watching ends.
    at_end: Duration,
    work: Work,
}

impl Delivery {
    /// Runs a program with these variables in its environment.
    pub(crate) fn exec(exec: &Exec, environment: Vec<(&'static str, String)>) -> Self {
        let failed = format!("`{}` failed", exec.text);
        let exec = exec.clone();
        let work: Work = Box::new(move |stop| exec.run(&environment, EXEC_TIMEOUT, stop));
        Self { failed, at_end: EXEC_TIMEOUT, work }
    }

    /// Posts a text to a webhook. The URL may be a secret, so only its host is named.
    #[cfg(feature = "webhook")]
    pub(crate) fn post(url: &str, text: &str) -> Self {
        let uri: Option<ureq::http::Uri> = url.parse().ok();
        let host = uri.and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_default();
        let failed = format!("the alarm could not be sent to the webhook at {host}");
        let (url, body) = (url.to_owned(), serde_json::json!({ "text": text }).to_string());
        let work: Work = Box::new(move |stop| post(&url, &body, stop));
        Self { failed, at_end: WEBHOOK_TIMEOUT, work }
    }
}

/// A delivery in its thread.
struct UnderWay {
    failed: String,
    at_end: Duration,
    thread: JoinHandle<Result<(), String>>,
}

/// Deliveries that are not yet done.
#[derive(Default)]
pub(crate) struct Deliveries {
    under_way: Vec<UnderWay>,
    waiting: VecDeque<Delivery>,
    /// Set when nobody waits any longer.
    stop: Arc<AtomicBool>,
}

impl Deliveries {
    /// Starts a delivery, or lets it wait for its turn.
    pub(crate) fn add(&mut self, delivery: Delivery) {
        self.waiting.push_back(delivery);
        self.tend();
    }

    /// Says what failed, and starts what can be started.
    pub(crate) fn tend(&mut self) {
        for UnderWay { failed, thread, .. } in
            self.under_way.extract_if(.., |delivery| delivery.thread.is_finished())
        {
            if let Err(why) = thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())) {
                screen::say(&format!("error: {failed}: {why}"));
            }
        }
        while self.under_way.len() < AT_ONCE
            && let Some(Delivery { failed, at_end, work }) = self.waiting.pop_front()
        {
            let stop = self.stop.clone();
            let thread = std::thread::spawn(move || work(&stop));
            self.under_way.push(UnderWay { failed, at_end, thread });
        }
    }

    /// Waits for what is not yet done, each for as long as it may take at the end, and says what was
    /// not done by then.
    pub(crate) fn finish(mut self) {
        let began = Instant::now();
        let late = |failed: &str, at_end: Duration| {
            let is_late = began.elapsed() >= at_end;
            if is_late {
                let seconds = at_end.as_secs();
                screen::say(&format!(
                    "error: {failed}: still not done {seconds} s after watching ended"
                ));
            }
            is_late
        };
        let mut given_up = Vec::new();
        while !self.under_way.is_empty() || !self.waiting.is_empty() {
            self.tend();
            let is_late = |delivery: &mut UnderWay| late(&delivery.failed, delivery.at_end);
            given_up.extend(self.under_way.extract_if(.., is_late));
            self.waiting.retain(|delivery| !late(&delivery.failed, delivery.at_end));
            sleep(LOOK_EVERY);
        }
        // A program that is given up is ended; a webhook need not be waited for.
        self.stop.store(true, Ordering::Relaxed);
        let ended = Instant::now();
        while given_up.iter().any(|delivery| !delivery.thread.is_finished())
            && ended.elapsed() < END_TIMEOUT
        {
            sleep(LOOK_EVERY);
        }
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exec {
    /// As it was given.
    text: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Exec {
    /// Splits a command into words as a shell does, and finds its program. Nothing is expanded.
    ///
    /// # Errors
    /// In words, if a quote is not closed or there is no such program.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let words =
            shlex::split(text).ok_or_else(|| format!("got `{text}`, want every quote closed"))?;
        let [program, arguments @ ..] = &words[..] else {
            return Err("got an empty command, want a program and its arguments".to_owned());
        };
        let found = which::which(program).map_err(|_| {
            format!(
                "got `{program}`, want a program that can be run; hint: no shell is run: for what only \
                 a shell can do, give sh -c '...'"
            )
        })?;
        Ok(Self { text: text.to_owned(), program: found, arguments: arguments.to_vec() })
    }

    fn run(
        &self,
        environment: &[(&'static str, String)],
        timeout: Duration,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // With what it starts it is a group, which is ended as a whole.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let began = Instant::now();
        loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(status.to_string()),
                None if began.elapsed() < timeout && !stop.load(Ordering::Relaxed) => {
                    sleep(LOOK_EVERY);
                }
                None => {
                    end(&mut child);
                    return Err(format!(
                        "it took more than {} s and was stopped",
                        timeout.as_secs()
                    ));
                }
            }
        }
    }
}

fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // A group that is gone has ended.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Whether a URL is one that can be posted to.
///
/// # Errors
/// In words, if it is not.
#[cfg(feature = "webhook")]
pub(crate) fn check_webhook(url: &str) -> Result<String, String> {
    let uri: Option<ureq::http::Uri> = url.parse().ok();
    let is_good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    let wanted = "want a URL such as https://hooks.example.com/services/T0/B0";
    if is_good { Ok(url.to_owned()) } else { Err(format!("got `{url}`, {wanted}")) }
}

#[cfg(feature = "webhook")]
fn post(url: &str, body: &str, stop: &AtomicBool) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(WEBHOOK_TIMEOUT)).build();
    let agent = ureq::Agent::new_with_config(config);
    let mut pauses = PAUSES.iter();
    loop {
        let request = agent.post(url).header("content-type", "application/json");
        let Err(error) = request.send(body) else { return Ok(()) };
        // What the server refuses once it refuses again.
        let is_final = matches!(
            error,
            ureq::Error::StatusCode(code @ 400..=499) if ![408, 429].contains(&code)
        );
        let Some(pause) = pauses.next().filter(|_| !is_final) else {
            return Err(error.to_string());
        };
        let again = Instant::now() + *pause;
        while Instant::now() < again {
            if stop.load(Ordering::Relaxed) {
                return Err(error.to_string());
            }
            sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does_and_nothing_is_expanded() {
        let exec = Exec::parse(r#"cargo 'a b' "c $HOME" d\ e ; *"#).expect("cargo runs the tests");
        assert_eq!(exec.arguments, ["a b", "c $HOME", "d e", ";", "*"]);
        for (text, said) in [
            ("", "got an empty command"),
            ("cargo 'open", "want every quote closed"),
            ("no-such-program-here x", "want a program that can be run"),
            (".", "want a program that can be run"),
        ] {
            let error = Exec::parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_that_takes_too_long_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let exec = Exec::parse("sh -c 'sleep 1000 & echo $! > \"$FILE\"; wait'").expect("sh");
        let stop = AtomicBool::new(false);
        let environment = [("FILE", pid.display().to_string())];
        let (pid, ran) = std::thread::scope(|scope| {
            let ran = scope.spawn(|| exec.run(&environment, Duration::from_secs(3600), &stop));
            let pid = loop {
                match std::fs::read_to_string(&pid) {
                    Ok(pid) if pid.ends_with('\n') => break pid,
                    _ => sleep(LOOK_EVERY),
                }
            };
            stop.store(true, Ordering::Relaxed);
            (pid, ran.join().expect("no panic"))
        });
        assert_eq!(ran, Err("it took more than 3600 s and was stopped".to_owned()));
        let status = format!("/proc/{}/status", pid.trim());
        let is_running =
            || std::fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ"));
        while is_running() {
            sleep(LOOK_EVERY);
        }
    }

    #[cfg(unix)]
    #[test]
    fn many_deliveries_are_done_and_the_slow_one_delays_none() {
        use std::sync::atomic::AtomicUsize;
        let (count, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut deliveries = Deliveries::default();
        let mut add = |work: Work| {
            deliveries.add(Delivery { failed: "x".into(), at_end: EXEC_TIMEOUT, work });
        };
        let (all, done) = (count.clone(), stop.clone());
        // Ends when all others have.
        add(Box::new(move |_| {
            while all.load(Ordering::Relaxed) < 3 * AT_ONCE {
                sleep(LOOK_EVERY);
            }
            done.store(true, Ordering::Relaxed);
            Ok(())
        }));
        for _ in 0..3 * AT_ONCE {
            let count = count.clone();
            add(Box::new(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }));
        }
        deliveries.finish();
        assert!(stop.load(Ordering::Relaxed));
    }
}
