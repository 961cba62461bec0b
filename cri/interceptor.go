package cri

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessageSize bounds a message each way, in bytes. kubelet reads at most
// 16 MiB; crictl and others more, and a list of a full node must reach them.
const maxMessageSize = 64 << 20

// ServerOptions are what a gRPC server that serves CRI must be made with:
// message sizes and both interceptors. log must not be nil.
func ServerOptions(log *logrus.Entry) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageSize),
		grpc.MaxSendMsgSize(maxMessageSize),
		grpc.ChainUnaryInterceptor(UnaryInterceptor(log)),
		grpc.ChainStreamInterceptor(StreamInterceptor(log)),
	}
}

// UnaryInterceptor turns the kinds of containerd/errdefs into gRPC codes,
// recovers panics into Internal, and logs each failed call once. An error that
// has a gRPC status already keeps it. A call ends before its client's deadline,
// so that the client hears why.
func UnaryInterceptor(log *logrus.Entry) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		call := begin(log, info.FullMethod)
		ctx, cancel := ahead(ctx)
		defer cancel()
		defer func() {
			if r := recover(); r != nil {
				resp, err = nil, call.panicked(r)
			}
			err = call.end(ctx, req, err)
		}()
		return handler(ctx, req)
	}
}

// maxAhead bounds by how much a call ends before its client's deadline.
const maxAhead = time.Second

// ahead lets a call's time end a little before its client's. A client that
// gives up by itself knows no more than that; our answer says at which stage
// the operation is.
func ahead(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, maxAhead)))
}

// StreamInterceptor is UnaryInterceptor for streaming RPCs.
func StreamInterceptor(log *logrus.Entry) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		call := begin(log, info.FullMethod)
		defer func() {
			if r := recover(); r != nil {
				err = call.panicked(r)
			}
			err = call.end(ss.Context(), nil, err)
		}()
		return handler(srv, ss)
	}
}

// call is one RPC under way, for the log.
type call struct {
	log    *logrus.Entry
	method string
	start  time.Time
	stack  []byte
}

func begin(log *logrus.Entry, method string) *call {
	return &call{log: log, method: path.Base(method), start: time.Now()}
}

// panicked keeps the stack for the log and hides it from the client.
func (c *call) panicked(r any) error {
	c.stack = debug.Stack()
	return fmt.Errorf("%s: panic: %v: %w", c.method, r, errdefs.ErrInternal)
}

// end translates the call's error and logs it.
func (c *call) end(ctx context.Context, req any, err error) error {
	if err == nil {
		if c.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
			c.entry(req).Debug("call done")
		}
		return nil
	}
	err = statusOf(ctx, err)
	st := status.Convert(err)
	entry := c.entry(req).WithField("code", st.Code().String())
	if c.stack != nil {
		entry = entry.WithField("stack", string(c.stack))
	}
	entry.Log(levelOf(st.Code()), st.Message())
	return err
}

// entry has the method, the duration and the objects that a request names.
func (c *call) entry(req any) *logrus.Entry {
	fields := logrus.Fields{"method": c.method, "duration": time.Since(c.start).Round(time.Microsecond).String()}
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok && r.GetPodSandboxId() != "" {
		fields["pod"] = r.GetPodSandboxId()
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok && r.GetContainerId() != "" {
		fields["container"] = r.GetContainerId()
	}
	if r, ok := req.(interface{ GetImage() *runtime.ImageSpec }); ok && r.GetImage().GetImage() != "" {
		fields["image"] = r.GetImage().GetImage()
	}
	switch r := req.(type) {
	case *runtime.RunPodSandboxRequest:
		m := r.GetConfig().GetMetadata()
		fields["name"] = m.GetNamespace() + "/" + m.GetName()
		fields["attempt"] = m.GetAttempt()
	case *runtime.CreateContainerRequest:
		fields["name"] = r.GetConfig().GetMetadata().GetName()
		fields["attempt"] = r.GetConfig().GetMetadata().GetAttempt()
	}
	return c.log.WithFields(fields)
}

// levelOf gives the log level of a failure: an error is ours, a warning the
// node's or the registry's, and the rest is what clients live with.
func levelOf(code codes.Code) logrus.Level {
	switch code {
	case codes.Internal, codes.DataLoss:
		return logrus.ErrorLevel
	case codes.NotFound, codes.Canceled, codes.Unimplemented:
		return logrus.InfoLevel
	default:
		return logrus.WarnLevel
	}
}
