/// The version that both programs print.
public let tomboloVersion = "0.1.0"
