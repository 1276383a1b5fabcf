//! What the agent was told: an independent log of every sample, and its comparison with what the API says.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use serde_json::Value;

use crate::agent::Agent;

/// A chart of a child, with all that was ever sent for it.
pub struct Chart {
    pub host: usize,
    pub id: String,
    pub every: i64,
    pub dimensions: usize,
    /// By time: the value of each dimension and when it was sent.
    pub samples: BTreeMap<i64, Vec<Option<Sent>>>,
    /// Slots from here on were sent since it was last looked at as a whole.
    pub new_from: i64,
}

#[derive(Clone, Copy)]
pub struct Sent {
    pub value: u32,
    pub at: Instant,
}

/// A sample that is not there.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    pub chart: usize,
    pub dimension: usize,
    pub time: i64,
    pub sent: Instant,
}

impl Chart {
    pub fn new(host: usize, id: String, every: i64, dimensions: usize) -> Chart {
        Chart { host, id, every, dimensions, samples: BTreeMap::new(), new_from: i64::MAX }
    }

    /// Asks for all slots from `from` on; puts what is missing and what is wrong into the lists. Gives how many samples
    /// were compared.
    pub fn compare(
        &self,
        number: usize,
        agent: &Agent,
        from: i64,
        missing: &mut Vec<Missing>,
        wrong: &mut Vec<String>,
    ) -> io::Result<u64> {
        const ROWS: i64 = 20_000;
        let (Some((&first, _)), Some((&last, _))) =
            (self.samples.first_key_value(), self.samples.last_key_value())
        else {
            return Ok(0);
        };
        let mut compared = 0;
        let mut after = first.max(from - from.rem_euclid(self.every)) - self.every;
        while after < last {
            let before = (after + ROWS * self.every).min(last);
            let held = self.held(agent, after, before)?;
            for (&time, row) in self.samples.range(after + 1..=before) {
                for (dimension, sent) in row.iter().enumerate() {
                    let Some(sent) = *sent else { continue };
                    compared += 1;
                    let known =
                        held.get(&time).and_then(|row| row.get(dimension).copied().flatten());
                    match known {
                        Some(value) if value == f64::from(sent.value) => {}
                        Some(value) => wrong.push(format!(
                            "{} d{dimension} at {time}: {value} instead of {}",
                            self.id, sent.value
                        )),
                        None => {
                            missing.push(Missing { chart: number, dimension, time, sent: sent.at });
                        }
                    }
                }
            }
            for (time, row) in &held {
                for (dimension, value) in row.iter().enumerate() {
                    let Some(value) = value else { continue };
                    let known = self
                        .samples
                        .get(time)
                        .and_then(|row| row.get(dimension).copied().flatten());
                    if known.is_none() {
                        wrong.push(format!(
                            "{} d{dimension} at {time}: {value} out of nowhere",
                            self.id
                        ));
                    }
                }
            }
            after = before;
        }
        Ok(compared)
    }

    /// What the agent says it holds in (after, before].
    fn held(
        &self,
        agent: &Agent,
        after: i64,
        before: i64,
    ) -> io::Result<BTreeMap<i64, Vec<Option<f64>>>> {
        // No number of points: every slot is a row. Of the samples alone: points of a higher tier are none.
        let path = format!(
            "/host/child{}/api/v1/data?chart={}&after={after}&before={before}&points=0&group=average&format=json\
             &tier=0&options=unaligned,seconds,selected-tier",
            self.host, self.id
        );
        let (status, body) = agent.get(&path)?;
        let mut rows = BTreeMap::new();
        if status == 404 {
            // It is defined, so it has nothing to show.
            return Ok(rows);
        }
        if status != 200 {
            return Err(io::Error::other(format!("{path} is answered by {status}: {body}")));
        }
        let json: Value = serde_json::from_str(&body).map_err(io::Error::other)?;
        let labels: Vec<&str> =
            json["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for row in json["data"].as_array().into_iter().flatten().filter_map(Value::as_array) {
            let Some(time) = row.first().and_then(Value::as_i64) else { continue };
            if time <= after || time > before {
                continue;
            }
            let mut values = vec![None; self.dimensions];
            for (label, value) in labels.iter().zip(row).skip(1) {
                let dimension = label.strip_prefix('d').and_then(|n| n.parse::<usize>().ok());
                if let Some(place) = dimension.and_then(|number| values.get_mut(number)) {
                    *place = value.as_f64();
                }
            }
            rows.insert(time, values);
        }
        Ok(rows)
    }
}
