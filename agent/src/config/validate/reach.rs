//! `strict`, `enforce_for` and `exempt`.

use tidegate_event::Principal;

use super::Check;
use crate::config::raw::{RawCapture, RawPrincipal, RawTarget, Text};
use crate::config::reach::{Earlier, Reach, StrictDefault};

/// Most exempt accounts of one target.
const EXEMPT_MAX: usize = 64;

/// The user ids of the strict principals.
pub(super) fn strict(raw: &[toml::Spanned<RawPrincipal>], principals: &[Principal]) -> Vec<u32> {
    let strict = raw.iter().map(toml::Spanned::get_ref).filter(|principal| principal.strict);
    strict
        .filter_map(|raw| principals.iter().find(|one| &one.name == raw.name.get_ref()))
        .map(|principal| principal.uid)
        .collect()
}

impl Check<'_> {
    /// `capture.strict_default` and `capture.earlier`.
    pub(super) fn habits(&mut self, raw: &RawCapture) -> (StrictDefault, Earlier) {
        let strict = [("refuse", StrictDefault::Refuse), ("pass", StrictDefault::Pass)];
        let earlier = [("end", Earlier::End), ("keep", Earlier::Keep)];
        let by_default = StrictDefault::default();
        (
            self.choice(raw.strict_default.as_ref(), "capture.strict_default", &strict, by_default),
            self.choice(raw.earlier.as_ref(), "capture.earlier", &earlier, Earlier::default()),
        )
    }

    /// Whom a target is protected from.
    pub(super) fn reach(&mut self, raw: &RawTarget) -> Reach {
        let choices = [("principals", false), ("everyone", true)];
        let everyone = self.choice(raw.enforce_for.as_ref(), "enforce_for", &choices, false);
        let Some(list) = &raw.exempt else {
            return Reach { everyone, exempt: Vec::new() };
        };
        let at = list.span().start;
        if !everyone {
            let what = "exempt has no effect without enforce_for = \"everyone\"";
            self.complain(at, what, "leave it out, or add enforce_for = \"everyone\"");
        }
        if list.get_ref().len() > EXEMPT_MAX {
            let what = format!("more than {EXEMPT_MAX} exempt accounts");
            self.complain(at, what, "name fewer");
        }
        let mut exempt: Vec<u32> =
            list.get_ref().iter().filter_map(|account| self.account(account)).collect();
        exempt.sort_unstable();
        exempt.dedup();
        Reach { everyone, exempt }
    }

    /// The user id that a number or a user name means.
    fn account(&mut self, account: &Text) -> Option<u32> {
        let text = account.get_ref();
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            // The highest uid means "no uid" to the kernel (-1 of uid_t).
            let uid = text.parse().ok().filter(|uid| *uid != u32::MAX);
            if uid.is_none() {
                let what = format!("{text} is no uid");
                self.complain(account.span().start, what, "use 0 to 4294967294");
            }
            return uid;
        }
        self.uid_of_user(account)
    }
}
