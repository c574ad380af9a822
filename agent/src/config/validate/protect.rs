//! What is protected at a target, how its results are masked, and the catalogue connection.
//!
//! Promises: a `[[protect]]` entry names a target that is there; a column has one class and one mask;
//! what a setting needs beside it is there too.

use std::collections::HashSet;

use tidegate_event::Protocol;
use tidegate_mask::{Mask, Unresolved};
use toml::Spanned;

use super::Check;
use crate::config::masking::{
    CatalogueConfig, DetectorName, IDENTIFIER_BYTES_MAX, KEEP_LAST_DEFAULT, KEEP_LAST_LIMIT,
    MaskingConfig, PASSWORD_FILE_BYTES_MAX, PROTECT_COLUMNS_MAX, PROTECT_MAX, ProtectConfig,
    ProtectedColumn, REFRESH_SECONDS_DEFAULT, REFRESH_SECONDS_LIMIT, REFRESH_SECONDS_MIN,
};
use crate::config::raw::{RawCatalogue, RawMasking, RawProtect, RawTarget, Text};
use crate::config::{TargetConfig, read_capped};

impl Check<'_> {
    /// Gives each target what is protected there, and how.
    pub(super) fn masking(
        &mut self,
        raw: &[Spanned<RawProtect>],
        raw_targets: &[Spanned<RawTarget>],
        targets: &mut [TargetConfig],
    ) {
        self.protect(raw, targets);
        for (raw, target) in raw_targets.iter().map(Spanned::get_ref).zip(targets) {
            self.only_databases(raw, target);
            target.masking = self.masking_of(&raw.masking, !target.protect.is_empty());
            target.catalogue = raw.catalogue.as_ref().map(|raw| self.catalogue(raw));
        }
    }

    /// Nothing may look protected that no machine masks: what commands write over SSH is looked through by the detectors,
    /// and has no columns.
    fn only_databases(&mut self, raw: &RawTarget, target: &TargetConfig) {
        let asks = !target.protect.is_empty()
            || raw.masking.unresolved.is_some()
            || raw.catalogue.is_some();
        if asks && target.protocol == Protocol::Ssh {
            self.complain(
                raw.protocol.span().start,
                format!("\"{}\" has no columns that could be protected: it speaks ssh", target.name),
                "leave out its [[protect]], masking.unresolved and catalogue; masking.detectors is for it too",
            );
        }
    }

    fn protect(&mut self, raw: &[Spanned<RawProtect>], targets: &mut [TargetConfig]) {
        if let Some(first_too_many) = raw.get(PROTECT_MAX) {
            let what = format!("more than {PROTECT_MAX} [[protect]] entries");
            self.complain(first_too_many.span().start, what, "join those of one class in one");
        }
        let mut taken = HashSet::new();
        for raw in raw.iter().map(Spanned::get_ref) {
            let class = self.name(&raw.class, "class");
            let mask = self.mask(raw);
            let name = raw.target.get_ref();
            let target = targets.iter_mut().find(|target| &target.name.0 == name);
            let protocol = target.as_ref().map_or(Protocol::Postgres, |target| target.protocol);
            let columns = self.columns(raw, protocol, &mut taken);
            match target {
                Some(target) => target.protect.push(ProtectConfig { class, columns, mask }),
                None => self.complain(
                    raw.target.span().start,
                    format!("there is no target \"{name}\""),
                    "add a [[targets]] entry of that name, or correct it",
                ),
            }
        }
    }

    fn columns(
        &mut self,
        raw: &RawProtect,
        protocol: Protocol,
        taken: &mut HashSet<(String, ProtectedColumn)>,
    ) -> Vec<ProtectedColumn> {
        let list = raw.columns.get_ref();
        if list.is_empty() || list.len() > PROTECT_COLUMNS_MAX {
            self.complain(
                raw.columns.span().start,
                format!("this entry protects {} columns", list.len()),
                format!("give it 1 to {PROTECT_COLUMNS_MAX}"),
            );
        }
        let mut columns = Vec::new();
        for text in list {
            let at = text.span().start;
            match ProtectedColumn::parse(text.get_ref(), protocol) {
                Ok(column) => {
                    let key = (raw.target.get_ref().clone(), column.clone());
                    if !taken.insert(key) {
                        let what = format!("column {column} is protected already");
                        self.complain(at, what, "a column has one mask: keep one of them");
                    }
                    columns.push(column);
                }
                Err((what, todo)) => self.complain(at, what, todo),
            }
        }
        columns
    }

    fn mask(&mut self, raw: &RawProtect) -> Mask {
        let keep_last = self.number(
            raw.keep_last.as_ref(),
            "keep_last",
            1..=u64::from(KEEP_LAST_LIMIT),
            u64::from(KEEP_LAST_DEFAULT),
        );
        let keep_last = u8::try_from(keep_last).unwrap_or(KEEP_LAST_DEFAULT);
        let mask = self.choice(
            Some(&raw.mask),
            "mask",
            &[
                ("redact", Mask::Redact),
                ("partial", Mask::Partial { keep_last }),
                ("hash", Mask::Hash),
                ("tokenise", Mask::Tokenise),
                ("null", Mask::Null),
            ],
            Mask::Redact,
        );
        if let (Some(number), false) = (&raw.keep_last, matches!(mask, Mask::Partial { .. })) {
            self.complain(
                number.span().start,
                "keep_last has no effect without mask = \"partial\"",
                "leave it out",
            );
        }
        mask
    }

    fn masking_of(&mut self, raw: &RawMasking, protects: bool) -> MaskingConfig {
        let default = if protects { Unresolved::Withhold } else { Unresolved::Clear };
        let unresolved = self.choice(
            raw.unresolved.as_ref(),
            "masking.unresolved",
            &[
                ("withhold", Unresolved::Withhold),
                ("detect", Unresolved::Detect),
                ("clear", Unresolved::Clear),
            ],
            default,
        );
        let detectors = match (&raw.detectors, unresolved) {
            (Some(list), _) => self.detectors(list.get_ref()),
            (None, Unresolved::Detect) => DetectorName::ALL.to_vec(),
            (None, _) => Vec::new(),
        };
        if let (Some(list), true, Unresolved::Detect) =
            (&raw.detectors, detectors.is_empty(), unresolved)
        {
            self.complain(
                list.span().start,
                "masking.detectors is empty, so nothing would be found",
                "name some, or leave the key out to mean all",
            );
        }
        MaskingConfig { detectors, unresolved }
    }

    fn detectors(&mut self, list: &[Text]) -> Vec<DetectorName> {
        let choices = DetectorName::ALL.map(|detector| (detector.name(), detector));
        let mut detectors = Vec::new();
        for text in list {
            let found =
                self.choice(Some(text), "masking.detectors", &choices, DetectorName::Secret);
            if !detectors.contains(&found) {
                detectors.push(found);
            }
        }
        detectors
    }

    fn catalogue(&mut self, raw: &RawCatalogue) -> CatalogueConfig {
        let user = raw.user.get_ref();
        if user.is_empty() || user.len() > IDENTIFIER_BYTES_MAX || user.contains('\0') {
            self.complain(
                raw.user.span().start,
                "catalogue.user is no database user",
                format!("write a name of 1 to {IDENTIFIER_BYTES_MAX} bytes"),
            );
        }
        let password_file = raw.password_file.as_ref().map(|text| {
            let path = self.beside_config(text.get_ref());
            let why = match read_capped(&path, PASSWORD_FILE_BYTES_MAX) {
                Ok(password) if password.trim_end_matches(['\r', '\n']).is_empty() => {
                    Some("is empty".to_owned())
                }
                Ok(_) => None,
                Err(why) => Some(why),
            };
            if let Some(why) = why {
                self.complain(
                    text.span().start,
                    format!("catalogue.password_file \"{}\" {why}", text.get_ref()),
                    "name a file that holds the password and nothing else",
                );
            }
            path
        });
        let refresh_seconds = self.number(
            raw.refresh_seconds.as_ref(),
            "catalogue.refresh_seconds",
            REFRESH_SECONDS_MIN..=REFRESH_SECONDS_LIMIT,
            REFRESH_SECONDS_DEFAULT,
        );
        let refresh_ms = refresh_seconds.saturating_mul(1000);
        CatalogueConfig { user: user.clone(), password_file, refresh_ms }
    }
}
