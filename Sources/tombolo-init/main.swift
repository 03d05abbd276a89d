import CLinux
import CMnl
import CCap
import Logging
import TOMLKit
let t = try TOMLTable(string: "a = 1")
print(t.keys, mnl_socket_open(0) as Any, cap_get_proc() as Any)
let l = Logger(label: "x"); l.info("hi")
