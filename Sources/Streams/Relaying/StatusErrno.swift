import CLinux
import Wire

extension Status {
  /// The status that stands for an errno of connect(2), read(2) or write(2).
  public init(errno code: Int32) {
    switch code {
    case 0: self = .ok
    case ECONNREFUSED: self = .refused
    case ETIMEDOUT: self = .timedOut
    case EHOSTUNREACH, EHOSTDOWN: self = .hostUnreachable
    case ENETUNREACH, ENETDOWN, EADDRNOTAVAIL, EAFNOSUPPORT: self = .networkUnreachable
    case EACCES, EPERM: self = .denied
    case EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN: self = .noResources
    case ECONNRESET, EPIPE, ECONNABORTED: self = .reset
    default: self = .failed
    }
  }
}
