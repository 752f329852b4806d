//! Storing an archive by one request, and in parts: what `bucket::PARTS_FROM_BYTES` was chosen by.

use std::{fs, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    bytes,
    far::{self, Network},
    measure::{self, median},
    part, seconds,
    support::s3::TestS3,
};

/// What S3 gives one connection, in bytes a second.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html>
const CONNECTION: f64 = 85e6;

/// What a Lambda function's network gives for long, in bytes a second.
const FUNCTION: f64 = 75e6;

const RUNS: usize = 3;

/// Prints a table for a network on which only connections have a limit, and one for a Lambda function's.
pub(crate) fn compare(runtime: &Runtime, quick: bool) {
    let sizes: &[u64] = if quick {
        &[8, 32, 64]
    } else {
        &[8, 16, 32, 64, 128, 256]
    };
    println!("## Storing an archive, 20 ms a round trip to S3\n");
    for (name, all) in [
        ("85 MB/s a connection", None),
        ("85 MB/s a connection, 75 MB/s all together", Some(FUNCTION)),
    ] {
        println!("| {name} | one request | in parts | beside | memory, one request | in parts |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: |");
        for megabytes in sizes {
            let size = megabytes * 1_000_000;
            let mut runs = [const { Vec::new() }; 2];
            for _ in 0..RUNS {
                for (way, runs) in ["whole", "parts"].into_iter().zip(&mut runs) {
                    runs.push(run(runtime, all, way, size));
                }
            }
            let [whole, parts] = runs
                .each_ref()
                .map(|runs| median(runs.iter().map(|(time, _)| *time)));
            let [memory_whole, memory_parts] = runs
                .each_ref()
                .map(|runs| median(runs.iter().map(|(_, peak)| *peak)));
            println!(
                "| {megabytes} MB | {} | {} | {:.2} | {} | {} |",
                seconds(whole),
                seconds(parts),
                parts.as_secs_f64() / whole.as_secs_f64(),
                bytes(memory_whole),
                bytes(memory_parts),
            );
        }
        println!();
    }
}

/// How long the put took, and the most memory that its process had, in bytes.
fn run(runtime: &Runtime, all: Option<f64>, way: &str, size: u64) -> (Duration, u64) {
    let s3 = runtime.block_on(TestS3::start());
    let (_, port) = s3.endpoint().rsplit_once(':').unwrap();
    let network = Network {
        round_trip: Duration::from_millis(20),
        connection: Some(CONNECTION),
        all,
    };
    let port = far::away(port.parse().unwrap(), network);
    let endpoint = format!("http://127.0.0.1:{port}");
    let times = tempfile::NamedTempFile::new().unwrap();
    let mut command = part(&["put", &endpoint, way, &size.to_string()]);
    let cost = measure::run(command.env("BENCH_STAGES", times.path()));
    let text = fs::read_to_string(times.path()).unwrap();
    let micros = text.lines().find_map(|line| line.strip_prefix("put\t"));
    let time = Duration::from_micros(micros.unwrap().parse().unwrap());
    eprintln!("{size}\t{way}\t{:.3} s", time.as_secs_f64());
    (time, cost.peak_kib * 1024)
}
