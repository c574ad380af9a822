//! A session over SSH, on a host that is not in the night.

use tidegate_collector::serve::Running;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::audit::v1::operation::What;
use tidegate_proto::audit::v1::{
    Carried, Decision, FileRequest, Operation, Outcome, Range, Result, ResultRows, SshRequest,
};

use crate::demo::{AT_0215, Story, Who, effect};
use crate::home::{Home, indexed};

/// Its id.
pub const TERMINAL: [u8; 16] = *b"terminal-at-0500";

/// A shell whose output is kept, and a file that went over.
pub async fn fill(home: &Home, running: &Running) {
    let mut story = Story::new("jump-01", 23, AT_0215 + 3 * 3600);
    let who = Who {
        session: TERMINAL,
        principal: "svc-deploy",
        uid: 995,
        executable: "/usr/bin/ssh",
        unit: "deploy.service",
        user: "root",
        database: "",
        target: "host",
        mode: "enforce",
    };
    story.open(&who);
    let allowed = || {
        let verdict = Verdict::Allow.into();
        Some(Decision { verdict, durability: "host".to_owned(), ..Decision::default() })
    };
    let shell = SshRequest {
        kind: "shell".to_owned(),
        terminal: "xterm 100x30".to_owned(),
        ..SshRequest::default()
    };
    let (decision, what) = (allowed(), Some(What::Ssh(shell)));
    let effects = vec![effect("shell", "", false)];
    let body = Body::Operation(Operation { decision, effects, what, ..Operation::default() });
    let seq = story.put(Some(TERMINAL), None, body);
    for (offset, data, stream) in [
        (0, &b"100x30"[..], "size"),
        (0, b"\x1b[1mdeploy\x1b[0m done \xe2\x9c\x93\r\n\x1b]52;c;ZXZpbA==\x07", "output"),
        (50, b"<script>alert(1)</script>\r\n", "errors"),
    ] {
        let (data, stream) = (data.to_vec().into(), stream.to_owned());
        story.put(Some(TERMINAL), Some(seq), Body::ResultRows(ResultRows { offset, data, stream }));
    }
    let result = Some(Result { bytes: 77, kept: 77, ..Result::default() });
    let (status, tags) = ("ok".to_owned(), "exit 0".to_owned());
    story.put(
        Some(TERMINAL),
        Some(seq),
        Body::Outcome(Outcome { status, tags, result, ..Outcome::default() }),
    );
    let file = FileRequest {
        kind: "file_open".to_owned(),
        path: "/srv/data/report.txt".to_owned(),
        access: "read".to_owned(),
        ..FileRequest::default()
    };
    let (decision, what) = (allowed(), Some(What::File(file)));
    let effects = vec![effect("file_read", "/srv/data/report", false)];
    let body = Body::Operation(Operation { decision, effects, what, ..Operation::default() });
    let open = story.put(Some(TERMINAL), None, body);
    let read = vec![Range { offset: 0, bytes: 4321 }];
    let carried = Some(Carried { read, sha256: vec![0xab; 32].into(), ..Carried::default() });
    let status = "ok".to_owned();
    story.put(
        Some(TERMINAL),
        Some(open),
        Body::Outcome(Outcome { status, carried, ..Outcome::default() }),
    );
    story.close(TERMINAL, 3, 0);
    story.deliver(home, running).await;
    indexed(running).await;
}
