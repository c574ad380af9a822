//! What records themselves say about the evidence: gaps, bypasses, unclean ends, the checkpoints that
//! an agent saw; and, in the collector's own chain, forks and records that it misses.

use tidegate_event::ChainId;

use super::heads::Equivocation;
use super::{Class, DeclaredGap, Spot, Verifier};
use crate::Header;
use crate::fields::{Fields, FormatError};

const HEARTBEAT_FIELD: u32 = 22;
const GAP_FIELD: u32 = 23;
const BYPASS_FIELD: u32 = 24;
const RECOVERED_FIELD: u32 = 25;
const EQUIVOCATION_FIELD: u32 = 51;
const MISSING_FIELD: u32 = 52;
const BYPASS_START: u64 = 1;

impl Verifier {
    /// What a record says about missing evidence.
    pub(super) fn read_body(&mut self, spot: &Spot, header: &Header, record: &[u8]) {
        let mut fields = Fields::new(record);
        while let Ok(Some((number, value))) = fields.next() {
            let Ok(body) = value.bytes(number) else {
                continue;
            };
            let read = match number {
                GAP_FIELD => self.read_gap(spot, header.chain_id, body),
                BYPASS_FIELD => self.read_bypass(spot, header, body),
                RECOVERED_FIELD => self.read_recovered(header.chain_id, body),
                HEARTBEAT_FIELD => self.read_heartbeat(spot, header, body),
                EQUIVOCATION_FIELD => self.read_equivocation(spot, header, body),
                MISSING_FIELD => self.read_missing(spot, header, body),
                _ => Ok(()),
            };
            if let Err(error) = read {
                let what = format!("its body can't be read: {error}");
                self.find(Class::Tampering, spot, Some(header.chain_id), Some(header.seq), what);
            }
        }
    }

    fn read_gap(&mut self, spot: &Spot, by: ChainId, body: &[u8]) -> Result<(), FormatError> {
        let mut gap = DeclaredGap {
            chain: by,
            from: 0,
            to: 0,
            by,
            reason: String::new(),
            spot: spot.clone(),
            shown: false,
        };
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => gap.from = value.varint(number)?,
                2 => gap.to = value.varint(number)?,
                3 => value.text(number)?.clone_into(&mut gap.reason),
                4 => gap.chain = ChainId(value.array(number, "a chain id of 32 bytes")?),
                _ => {}
            }
        }
        self.gaps.push(gap);
        Ok(())
    }

    fn read_bypass(
        &mut self,
        spot: &Spot,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FormatError> {
        let (mut phase, mut target, mut reason, mut connections) = (0, "", "", 0);
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => phase = value.varint(number)?,
                2 => target = value.text(number)?,
                3 => reason = value.text(number)?,
                4 => connections = value.varint(number)?,
                _ => {}
            }
        }
        let what = if phase == BYPASS_START {
            format!(
                "from here target {target:?} passed without evidence, by its on_failure: {reason}"
            )
        } else {
            format!(
                "until here {connections} connections to target {target:?} passed without evidence: {reason}"
            )
        };
        self.find(Class::Gap, spot, Some(header.chain_id), Some(header.seq), what);
        Ok(())
    }

    fn read_recovered(&mut self, by: ChainId, body: &[u8]) -> Result<(), FormatError> {
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                let ended = ChainId(value.array(number, "a chain id of 32 bytes")?);
                self.recovered.push((ended, by));
            }
        }
        Ok(())
    }

    fn read_heartbeat(
        &mut self,
        spot: &Spot,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FormatError> {
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            if number == 10 {
                self.check_seen(spot, header, value.text(number)?);
            }
        }
        Ok(())
    }

    fn read_equivocation(
        &mut self,
        spot: &Spot,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FormatError> {
        let chain = header.chain_id;
        let mut about = Equivocation { agent: "", chain, seq: 0, seal: &[], detail: "" };
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => about.agent = value.text(number)?,
                2 => about.chain = ChainId(value.array(number, "a chain id of 32 bytes")?),
                3 => about.seq = value.varint(number)?,
                4 => about.seal = value.bytes(number)?,
                6 => about.detail = value.text(number)?,
                _ => {}
            }
        }
        self.check_equivocation(spot, header, &about);
        Ok(())
    }

    fn read_missing(
        &mut self,
        spot: &Spot,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FormatError> {
        let (mut agent, mut chain, mut from, mut to) = ("", header.chain_id, 0, 0);
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => agent = value.text(number)?,
                2 => chain = ChainId(value.array(number, "a chain id of 32 bytes")?),
                3 => from = value.varint(number)?,
                4 => to = value.varint(number)?,
                _ => {}
            }
        }
        self.missing.push((spot.clone(), agent.to_owned(), chain, from, to));
        Ok(())
    }
}
