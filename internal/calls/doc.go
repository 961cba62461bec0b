// Package calls knows which gRPC calls are under way, who makes them, and for
// how long, and tells the recorder of those that change something.
//
// Who makes a call is asked from the kernel when the connection is made
// (SO_PEERCRED, unix(7)): the name and the number of the process, and its user.
package calls
