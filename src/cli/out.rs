//! What the command line writes. A command writes its lines at once. A service goes on whoever reads them: each stream has a
//! thread of its own and a queue with an end, so that a reader that is slow or gone costs lines, and nothing waits for it.

use std::{
    fmt::Arguments,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::plain;
use clap::ColorChoice;
use indicatif::{MultiProgress, ProgressDrawTarget};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Notify;

use super::prose::Line as Prose;

/// How many lines may wait for their reader.
const WAITING: usize = 1_000;

/// How long the last lines of a service may take.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// How results are written, and how much else.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// Results are lines of JSON, and what is said besides is for people on stderr.
    pub(super) json: bool,
    /// Nothing is said but results and what went wrong.
    pub(super) quiet: bool,
    /// Each result is told in detail.
    pub(super) verbose: bool,
    pub(super) color: ColorChoice,
}

static MANNER: OnceLock<Manner> = OnceLock::new();

/// The lines of progress, which give way to what is written.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let hidden = manner().quiet || SERVICE.get().is_some();
    MultiProgress::with_draw_target(if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    })
});

/// Says how everything is written from now on.
pub(super) fn begin(manner: Manner) {
    MANNER.set(manner).ok();
}

pub(super) fn manner() -> Manner {
    MANNER.get().copied().unwrap_or_default()
}

/// Whether a person at a terminal reads the results.
pub(super) fn is_read_by_people() -> bool {
    stdout().is_terminal()
}

/// How wide the terminal is that results go to, if they go to one.
pub(super) fn columns() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(stdout())?;
    Some(width.0.into())
}

pub(super) fn bars() -> &'static MultiProgress {
    &BARS
}

/// Whether a stream has colours, unless somebody says so: `NO_COLOR` and `TERM=dumb` are heard, as elsewhere.
///
/// Source: <https://no-color.org>
fn has_colors(is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match manner().color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            is_terminal && !is_dumb && !is_set("NO_COLOR")
        }
    }
}

/// Writes a result for people on stdout.
pub(super) fn result(line: &Prose) {
    let text = line.text(has_colors(stdout().is_terminal()));
    match SERVICE.get() {
        Some(service) => service
            .stdout
            .send(stamped(&text, OffsetDateTime::now_utc())),
        None => say(format_args!("{text}")),
    }
}

/// Writes on stderr what a person should see.
pub(super) fn problem(line: &Prose) {
    let text = line.text(has_colors(stderr().is_terminal()));
    write_note(&text);
}

/// The streams of a service, once it is one.
static SERVICE: OnceLock<Service> = OnceLock::new();

struct Service {
    stdout: Stream,
    stderr: Stream,
}

/// Told when nobody reads what a command says.
static UNREAD: Notify = Notify::const_new();

/// Writes a line on stdout, if anybody reads it.
pub(super) fn say(text: Arguments<'_>) {
    if let Some(service) = SERVICE.get() {
        service.stdout.send(text.to_string());
    } else if BARS.suspend(|| writeln!(stdout(), "{text}")).is_err() {
        UNREAD.notify_one();
    }
}

/// Waits until nobody reads on what a command says, as in `demo | head`. Then it ends quietly, and tidies up.
pub(super) async fn unread() {
    UNREAD.notified().await;
}

/// Writes what a file holds on stdout, as it is.
pub(super) fn file(text: &str) {
    if write!(stdout(), "{text}").is_err() {
        UNREAD.notify_one();
    }
}

/// Writes lines on stderr, if anybody reads them. Those of a service have their time.
pub(super) fn note(text: Arguments<'_>) {
    write_note(&plain::lines(&text.to_string()));
}

fn write_note(text: &str) {
    match SERVICE.get() {
        Some(service) => service
            .stderr
            .send(stamped(text, OffsetDateTime::now_utc())),
        None => _ = BARS.suspend(|| writeln!(stderr(), "{text}")),
    }
}

/// Whether somebody sees what is asked.
pub(super) fn shows_questions() -> bool {
    stderr().is_terminal()
}

/// Asks something on stderr; the answer is typed behind it.
pub(super) fn ask(question: Arguments<'_>) {
    write!(stderr(), "{question} ").ok();
}

fn stamped(text: &str, now: OffsetDateTime) -> String {
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let time = now.format(&Rfc3339).unwrap_or_default();
    let lines = text.lines().map(|line| format!("{time} {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn stdout() -> io::Stdout {
    io::stdout()
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn stderr() -> io::Stderr {
    io::stderr()
}

/// Where the log goes: lines on stderr, each in one piece.
pub(super) struct Log {
    /// Whether its lines have time and colours of their own.
    pub(super) is_whole: bool,
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        match SERVICE.get() {
            Some(service) if self.is_whole => service.stderr.send(text.to_owned()),
            None if self.is_whole => _ = BARS.suspend(|| writeln!(stderr(), "{text}")),
            _ => note(format_args!("{text}")),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on nothing waits for a reader.
pub(super) fn become_service() {
    SERVICE.get_or_init(|| {
        let stderr = Stream::start(stderr(), |lost| match lost {
            // Whom should it tell?
            Lost::Begins(_) => {}
            Lost::Were(lines) => {
                writeln!(stderr(), "warning: lines that nobody read in time were left out: {lines}").ok();
            }
        });
        let stdout = Stream::start(stdout(), |lost| match lost {
            Lost::Begins(why) => note(format_args!(
                "warning: stdout cannot be written ({why}); everything else goes on, and outcomes are told here alone"
            )),
            Lost::Were(lines) => note(format_args!(
                "warning: outcomes that were not written on stdout, since nobody read them in time: {lines}"
            )),
        });
        Service { stdout, stderr }
    });
}

/// Gives the last lines of a service a little time.
pub(super) fn finish() {
    if let Some(service) = SERVICE.get() {
        service.stdout.finish();
        service.stderr.finish();
    }
}

/// A stream with its thread.
struct Stream {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(String),
    /// Who waits for all before it.
    Last(SyncSender<()>),
}

/// What is told of lines that are not written.
enum Lost {
    /// That it begins, and why.
    Begins(io::Error),
    /// How many there were, once lines are written again.
    Were(u64),
}

impl Stream {
    fn start(to: impl Write + Send + 'static, tell: impl Fn(Lost) + Send + 'static) -> Self {
        let (lines, waiting) = mpsc::sync_channel(WAITING);
        let lost = Arc::<AtomicU64>::default();
        let count = Arc::clone(&lost);
        thread::spawn(move || write(to, &waiting, &count, tell));
        Self { lines, lost }
    }

    fn send(&self, text: String) {
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn finish(&self) {
        let (done, all) = mpsc::sync_channel(1);
        let end = Instant::now() + LAST_WITHIN;
        let mut last = Line::Last(done);
        while let Err(TrySendError::Full(line)) = self.lines.try_send(last) {
            if Instant::now() >= end {
                return;
            }
            last = line;
            thread::sleep(Duration::from_millis(5));
        }
        let left = end.saturating_duration_since(Instant::now());
        all.recv_timeout(left).ok();
    }
}

fn write(mut to: impl Write, lines: &Receiver<Line>, lost: &AtomicU64, tell: impl Fn(Lost)) {
    let mut is_broken = false;
    for line in lines {
        let text = match line {
            Line::Text(text) => text + "\n",
            Line::Last(done) => {
                done.send(()).ok();
                continue;
            }
        };
        match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
            Ok(()) => {
                is_broken = false;
                let lines = lost.swap(0, Relaxed);
                if lines > 0 {
                    tell(Lost::Were(lines));
                }
            }
            Err(why) => {
                lost.fetch_add(1, Relaxed);
                if !is_broken {
                    tell(Lost::Begins(why));
                }
                is_broken = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes lines while the door is open.
    #[derive(Clone, Default)]
    struct Reader {
        door: Arc<Mutex<Option<io::ErrorKind>>>,
        read: Arc<Mutex<String>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = *self.door.lock().unwrap() {
                return Err(kind.into());
            }
            let text = std::str::from_utf8(bytes).unwrap();
            self.read.lock().unwrap().push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_of_a_service_has_its_time() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_764_500_000_123_456_789).unwrap();
        assert_eq!(
            stamped("one\n  two", now),
            "2025-11-30T10:53:20Z one\n2025-11-30T10:53:20Z   two"
        );
    }

    #[test]
    fn a_reader_that_is_slow_or_gone_costs_lines_which_are_counted() {
        let (reader, told) = (Reader::default(), Arc::<Mutex<Vec<String>>>::default());
        let tales = Arc::clone(&told);
        let stream = Stream::start(reader.clone(), move |lost| {
            let text = match lost {
                Lost::Begins(why) => format!("begins: {}", why.kind()),
                Lost::Were(lines) => format!("were: {lines}"),
            };
            tales.lock().unwrap().push(text);
        });
        stream.send("one".into());
        stream.finish();
        // A full disk, twice.
        for _ in 0..2 {
            *reader.door.lock().unwrap() = Some(io::ErrorKind::StorageFull);
            stream.send("lost".into());
            stream.send("lost".into());
            stream.finish();
            *reader.door.lock().unwrap() = None;
            stream.send("again".into());
            stream.finish();
        }
        // Nobody reads for a while.
        let stopped = reader.door.lock().unwrap();
        for n in 0..WAITING + 10 {
            stream.send(n.to_string());
        }
        drop(stopped);
        stream.finish();
        stream.send("end".into());
        stream.finish();
        let told = told.lock().unwrap();
        let begins = format!("begins: {}", io::ErrorKind::StorageFull);
        assert_eq!(told[..4], [&*begins, "were: 2", &*begins, "were: 2"]);
        let lost: usize = told[4].strip_prefix("were: ").unwrap().parse().unwrap();
        assert!((1..=10).contains(&lost), "{lost}");
        let read = reader.read.lock().unwrap();
        assert!(read.starts_with("one\nagain\nagain\n0\n1\n2\n"), "{read}");
        assert_eq!(read.lines().count(), 3 + WAITING + 10 - lost + 1);
        assert!(read.ends_with("\nend\n"), "{read}");
    }
}
