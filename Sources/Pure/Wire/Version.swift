/// The version that both programs print, and that an enclave tells its host (`StartReport.version`).
public let tomboloVersion = "0.1.0"
