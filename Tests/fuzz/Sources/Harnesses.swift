/// All of them. A new one is a file beside this with one `Harness`, and a word here; seeds go to Tests/fuzz/corpus/NAME.
let harnesses: [Harness] = [
  handshake, frames, session, logRecords, logLines, dns, resolvConf, configuration, roleDocument, localDocument,
  packets,
  sharedPackets, netlink, admission, services, relayState, filters, archives, measuredImages, compressed, vsockDevice,
  packetRings, kernelFiles, status, addresses, accounts, clientHello, dnsAnswer, flows, quicDatagrams,
  cbor, attestation, heldSegments, volume, datagrams, upstreamMessage, upstreams, allowlist, forwards, proxyHeader,
  http, securityModule, certificateDates, runtimeParameters,
]
