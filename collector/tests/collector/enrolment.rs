//! Who comes in.

use tidegate_proto::uplink::v1::refused::Why;
use tonic::Code;
use tonic::transport::Identity;

use crate::agent::FakeAgent;
use crate::home::Home;

#[tokio::test]
async fn a_token_enrols_one_agent_once() {
    let home = Home::new();
    let running = home.serve().await;
    let (a, b) = (FakeAgent::new("a", 1), FakeAgent::new("b", 2));
    let token = home.token("a");

    let other = home.try_enrol(&running, "b", &b.key, &token, &b.key).await;
    assert_eq!(other.err().unwrap().code(), Code::PermissionDenied, "another agent's token");
    let unproven = home.try_enrol(&running, "a", &a.key, &token, &b.key).await;
    assert_eq!(unproven.err().unwrap().code(), Code::InvalidArgument, "a key that it doesn't hold");
    let odd = home.try_enrol(&running, "../a", &a.key, &token, &a.key).await;
    assert_eq!(odd.err().unwrap().code(), Code::InvalidArgument, "a name that is a path");

    let (_, response) = home.try_enrol(&running, "a", &a.key, &token, &a.key).await.unwrap();
    assert_eq!(response.origin, "test.example/log");
    assert_eq!(response.log_key, home.keys().log_key);
    let again = home.try_enrol(&running, "a", &a.key, &token, &a.key).await;
    assert_eq!(again.err().unwrap().code(), Code::PermissionDenied, "a used token");

    let keys = home.keys();
    let enrolled: Vec<_> = keys.agents.iter().map(|agent| agent.agent_id.as_str()).collect();
    assert_eq!(enrolled, ["@collector", "a"]);
    assert_eq!(keys.agents[1].audit_key, a.key.verifying_key().to_bytes());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn only_the_newest_certificate_of_an_enrolled_agent_opens_a_stream() {
    let home = Home::new();
    let running = home.serve().await;
    let a = FakeAgent::new("a", 1);
    let first = home.enrol(&running, "a", &a.key).await;
    let second = home.enrol(&running, "a", &a.key).await;

    let nobody = home.channel(&running, None).await.unwrap();
    let refused = home.open_on(nobody, "a", None).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "without a certificate");
    let refused = home.open(&running, &first, "a", None).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "with the certificate before");
    let mut wire = home.open(&running, &second, "b", None).await.unwrap();
    assert_eq!(wire.refused().await.why(), Why::UnknownAgent, "a Hello for another agent");

    let stranger = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&stranger).unwrap();
    let identity = Identity::from_pem(own.pem(), stranger.serialize_pem());
    let outcome = match home.channel(&running, Some(identity)).await {
        Ok(channel) => home.open_on(channel, "a", None).await.map(|_| ()).is_ok(),
        Err(_) => false,
    };
    assert!(!outcome, "a certificate of nobody's CA was taken");

    home.greeted(&running, &second, None).await;
    running.stop().await.unwrap();
}

#[test]
fn init_never_overwrites() {
    let home = Home::new();
    let again = tidegate_collector::init::init(&tidegate_collector::init::Options {
        data_dir: &home.config.paths().dir,
        origin: "other.example",
        listen: "127.0.0.1:1".parse().unwrap(),
        names: &[],
    });
    assert!(again.is_err());
}
