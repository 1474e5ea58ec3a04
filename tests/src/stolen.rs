//! Tests of how long something takes, on virtual machines whose CPUs are not always there.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// So much of the CPUs' time taken by the hypervisor explains a packet or an answer that comes too late.
const EXPLAINS: Duration = Duration::from_millis(200);
/// Attempts in all.
const ATTEMPTS: usize = 4;

/// Makes an attempt at what depends on time. One that fails while the hypervisor had the CPUs (`steal` of proc_stat(5))
/// says nothing and is made again, three times at most.
///
/// # Errors
///
/// Those of the last attempt; if `/proc/stat` cannot be read.
pub fn on_time<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    retry(&mut attempt, stolen)
}

fn retry<T>(
    attempt: &mut impl FnMut() -> Result<T>,
    mut stolen: impl FnMut() -> Result<Duration>,
) -> Result<T> {
    for _ in 1..ATTEMPTS {
        let before = stolen()?;
        let error = match attempt() {
            Err(error) => error,
            done => return done,
        };
        let lost = stolen()?.saturating_sub(before);
        if lost < EXPLAINS {
            return Err(error);
        }
        println!("once more: {lost:?} of the CPUs' time were stolen when it failed: {error:#}");
    }
    attempt()
}

/// The time that the hypervisor has taken from all CPUs since the boot.
fn stolen() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    // cpu  user nice system idle iowait irq softirq steal …, in ticks of USER_HZ, which is 100.
    let ticks = text.split_whitespace().nth(8);
    let ticks: u64 = ticks
        .context("/proc/stat has no `steal`")?
        .parse()
        .context("`steal` of /proc/stat")?;
    Ok(Duration::from_millis(10 * ticks))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// Attempts that were made, when each loses so much.
    fn attempts(lost: Duration, succeeds: Option<usize>) -> (usize, bool) {
        let (mut made, mut at) = (0, Duration::ZERO);
        let done = retry(
            &mut || {
                made += 1;
                match succeeds {
                    Some(attempt) if attempt == made => Ok(()),
                    _ => bail!("late"),
                }
            },
            || {
                at += lost;
                Ok(at)
            },
        );
        (made, done.is_ok())
    }

    #[test]
    fn only_what_was_stolen_excuses() {
        assert_eq!(attempts(Duration::ZERO, Some(2)), (1, false));
        assert_eq!(attempts(EXPLAINS, Some(1)), (1, true));
        assert_eq!(attempts(EXPLAINS, Some(3)), (3, true));
        assert_eq!(attempts(EXPLAINS, None), (ATTEMPTS, false));
    }

    #[test]
    fn it_is_read() {
        let before = stolen().unwrap();
        assert!(stolen().unwrap() >= before);
    }
}
