//! What works by itself: the sweep and the alarms, and who is told of them.

use crate::{
    doctor::{Check, Finding, seen::Seen},
    plain,
};

/// The schedule of the sweep.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Schedule {
    pub(in crate::doctor) name: String,
    /// `ENABLED` or `DISABLED`.
    pub(in crate::doctor) state: String,
}

pub(in crate::doctor) fn schedule(stack: &str, found: &Seen<Option<Schedule>>) -> Finding {
    match found {
        Ok(Some(schedule)) if schedule.state == "ENABLED" => Check::Sweep.ok(&schedule.name, "the sweep is on"),
        Ok(Some(schedule)) => Check::Sweep
            .error(&schedule.name, format!("the sweep is {}, so a push that no webhook told of is never delivered", schedule.state))
            .with("turn it on in the console: EventBridge, Schedules"),
        Ok(None) => Check::Sweep
            .error(stack, "there is no schedule of the sweep, so a push that no webhook told of is never delivered")
            .with(format!("deploy the stack {stack} again")),
        Err(unseen) => Check::Sweep.unknown(stack, unseen),
    }
}

/// The alarms of a stack, and who is told of them.
#[derive(Debug, Clone)]
pub(in crate::doctor) struct Alarms {
    /// Those that are on: name and why.
    pub(in crate::doctor) on: Seen<Vec<(String, String)>>,
    /// Addresses, and whether each is confirmed.
    pub(in crate::doctor) told: Seen<Vec<(String, bool)>>,
}

pub(in crate::doctor) fn alarms(stack: &str, topic: &str, alarms: &Alarms) -> Vec<Finding> {
    let mut found = Vec::new();
    match &alarms.on {
        Ok(on) if on.is_empty() => found.push(Check::Alarm.ok(stack, "no alarm is on")),
        Ok(on) => found.extend(on.iter().map(|(name, why)| {
            Check::Alarm
                .warning(name, format!("the alarm is on: {}", plain::foreign(why)))
                .with("what to do is in docs/operate.md, Alarms")
        })),
        Err(unseen) => found.push(Check::Alarm.unknown(stack, unseen)),
    }
    let pending = |told: &[(String, bool)]| {
        let pending = told.iter().filter(|(_, confirmed)| !confirmed);
        pending
            .map(|(address, _)| plain::foreign(address))
            .collect::<Vec<_>>()
            .join(", ")
    };
    found.push(match &alarms.told {
        Ok(told) if told.is_empty() => Check::AlarmAddress
            .warning(topic, "nobody is told of alarms")
            .with(format!("deploy the stack {stack} with AlarmEmail=you@example.com")),
        Ok(told) if told.iter().any(|(_, confirmed)| !confirmed) => Check::AlarmAddress
            .error(topic, format!("not told of alarms, since it was never confirmed: {}", pending(told)))
            .with("open the link in the mail of AWS Notifications; to have it sent again, take the subscription away and deploy again"),
        Ok(told) => Check::AlarmAddress.ok(topic, plain::count(told.len(), "address is told", "addresses are told")),
        Err(unseen) => Check::AlarmAddress.unknown(topic, unseen),
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::tests::{line, lines, problems};

    #[test]
    fn alarms_and_the_sweep_are_told() {
        let told = |told: &[(&str, bool)]| -> Seen<Vec<(String, bool)>> {
            Ok(told
                .iter()
                .map(|(address, yes)| ((*address).to_owned(), *yes))
                .collect())
        };
        let all = Alarms {
            on: Ok(vec![(
                "bridge-queue-age".into(),
                "Threshold Crossed".into(),
            )]),
            told: told(&[("a@x.jp", false)]),
        };
        assert_eq!(
            lines(&alarms("bridge", "topic", &all)),
            [
                "warning alarm bridge-queue-age: the alarm is on: Threshold Crossed => what to do is in docs/operate.md, Alarms",
                "error alarm_address topic: not told of alarms, since it was never confirmed: a@x.jp => open the link in the mail of AWS \
                 Notifications; to have it sent again, take the subscription away and deploy again"
            ]
        );
        let none = Alarms {
            on: Ok(Vec::new()),
            told: told(&[]),
        };
        assert_eq!(
            lines(&alarms("bridge", "topic", &none))[1],
            "warning alarm_address topic: nobody is told of alarms => deploy the stack bridge with AlarmEmail=you@example.com"
        );
        let well = Alarms {
            told: told(&[("a@x.jp", true)]),
            ..none
        };
        assert!(problems(&alarms("bridge", "topic", &well)).is_empty());
        let state = |state: &str| {
            Ok(Some(Schedule {
                name: "sweep-1".into(),
                state: state.into(),
            }))
        };
        for (found, expected) in [
            (state("ENABLED"), "ok sweep sweep-1"),
            (
                state("DISABLED"),
                "error sweep sweep-1: the sweep is DISABLED, so a push that no webhook told of is never delivered",
            ),
            (
                Ok(None),
                "error sweep bridge: there is no schedule of the sweep",
            ),
        ] {
            let line = line(&schedule("bridge", &found));
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
