//! A network that takes its time: every byte arrives half a round trip late, and so does a new connection.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

/// A network between a client and a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) round_trip: Duration,
    /// What one connection carries in each direction, in bytes a second.
    pub(crate) connection: Option<f64>,
    /// What all connections carry together in each direction, in bytes a second.
    pub(crate) all: Option<f64>,
}

/// Forwards connections to a port of this machine. Returns the port that takes them; threads end with the process.
pub(crate) fn away(port: u16, network: Network) -> u16 {
    let Network {
        round_trip,
        connection,
        all,
    } = network;
    let all = [all, all].map(Pace::at);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let here = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let all = all.clone();
            thread::spawn(move || {
                // What SYN and its answer take.
                thread::sleep(round_trip);
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                for ((from, to), all) in [(&client, &server), (&server, &client)]
                    .into_iter()
                    .zip(all)
                {
                    to.set_nodelay(true).unwrap();
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let paces = [Pace::at(connection), all];
                    thread::spawn(move || carry(from, to, round_trip / 2, &paces));
                }
            });
        }
    });
    here
}

/// How fast bytes may pass. Shared by those who share it.
#[derive(Clone)]
struct Pace {
    bytes_per_second: Option<f64>,
    /// When what has passed so far is through.
    free: Arc<Mutex<Instant>>,
}

impl Pace {
    /// How late bytes may be that pass at once: the system wakes nobody to the microsecond.
    const SLACK: Duration = Duration::from_millis(5);

    fn at(bytes_per_second: Option<f64>) -> Self {
        Self {
            bytes_per_second,
            free: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits until so many bytes are through.
    fn pass(&self, bytes: u32) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let through = {
            let mut free = self.free.lock().unwrap();
            if free.elapsed() > Self::SLACK {
                *free = Instant::now();
            }
            *free += Duration::from_secs_f64(f64::from(bytes) / rate);
            *free
        };
        thread::sleep(through.saturating_duration_since(Instant::now()));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration, paces: &[Pace]) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(4096);
    let writer = thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(n) => {
                for pace in paces {
                    pace.pass(u32::try_from(n).unwrap());
                }
                if sender
                    .send((Instant::now() + delay, buffer[..n].to_vec()))
                    .is_err()
                {
                    break;
                }
            }
        }
    }
    drop(sender);
    writer.join().ok();
}
