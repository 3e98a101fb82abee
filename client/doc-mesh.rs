// What the doc examples of the two client libraries run against: a throw-away authority, one broker in this process,
// credentials and a ticket. Included by them, hidden.

/// One broker on loopback, and the files of Controller `alice` and Target `pc-17`.
struct DocMesh {
    ca: rc_transport::testing::TestCa,
    broker: rc_broker::RunningBroker,
}

impl DocMesh {
    async fn start() -> Self {
        let ca = rc_transport::testing::TestCa::new("mesh.example");
        let signer = rc_transport::TicketSigner::generate().unwrap();
        let mut ticket_keys = rc_proto::identity::ticket::TicketKeys::default();
        ticket_keys.insert(signer.kid().clone(), signer.public_key()).unwrap();
        std::fs::write(ca.directory().join("ticket-keys.json"), ticket_keys.to_json()).unwrap();
        std::fs::write(ca.directory().join("ticket.key"), signer.to_pem().unwrap().as_bytes()).unwrap();
        for (identity, name) in [("controller/alice", "alice"), ("target/pc-17", "pc-17")] {
            let files = ca.issue(&ca.id(identity), &[]);
            std::fs::rename(files.certificate, ca.directory().join(format!("{name}.pem"))).unwrap();
            std::fs::rename(files.key, ca.directory().join(format!("{name}.key"))).unwrap();
        }
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let alice = rc_transport::Credentials::load(&Self::files(&ca, "alice")).unwrap();
        let claims = rc_proto::identity::ticket::TicketClaims {
            iss: "example".to_owned(),
            sub: ca.id("controller/alice"),
            aud: ca.id("target/pc-17"),
            iat: now,
            nbf: now,
            jti: rc_proto::wire::Jti([1; 16]),
            perm: vec!["echo".parse().unwrap()],
            cnf: rc_proto::identity::ticket::KeyThumbprint(alice.key_thumbprint()),
            start_by: now + 300,
            exp: now + 3600,
        };
        std::fs::write(ca.directory().join("pc-17.ticket"), signer.sign_ticket(&claims).unwrap()).unwrap();
        let listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0))];
        let config = rc_broker::BrokerConfig { listen, ..rc_broker::BrokerConfig::default() };
        let parts = rc_broker::Parts {
            credentials: std::sync::Arc::new(ca.credentials("broker/in/broker-1", &[])),
            ticket_keys,
            deny_list: None,
            net: std::sync::Arc::new(rc_transport::TcpNet),
            clock: std::sync::Arc::new(rc_transport::BootClock),
        };
        let broker = rc_broker::Broker::start(config, parts).await.unwrap();
        Self { ca, broker }
    }

    fn files(ca: &rc_transport::testing::TestCa, name: &str) -> rc_client::CredentialFiles {
        rc_client::CredentialFiles {
            certificate: ca.directory().join(format!("{name}.pem")),
            key: ca.directory().join(format!("{name}.key")),
            ca: ca.ca_file(),
            crl: None,
        }
    }

    /// Where the files are.
    fn directory(&self) -> &std::path::Path {
        self.ca.directory()
    }

    /// What `alice` or `pc-17` is told.
    fn config(&self, name: &str) -> rc_client::ClientConfig {
        let mut config = rc_client::ClientConfig::new(Self::files(&self.ca, name), [""; 0]);
        config.brokers = self.places();
        config
    }

    /// Where the broker is.
    fn places(&self) -> rc_client::BrokerPlaces {
        let (broker, address) = (self.broker.id().clone(), self.broker.addresses()[0]);
        rc_client::BrokerPlaces {
            addresses: vec![rc_client::StaticBroker { broker, address }],
            allow_loopback: true,
            ..rc_client::BrokerPlaces::named([""; 0])
        }
    }
}
