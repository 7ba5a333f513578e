package microvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Both monitors speak HTTP/1.1 over a unix socket, the little of it that micro_http knows:
// net/http would be a large part of the whole program.

// Bounds of an answer, in bytes. Cloud Hypervisor's has its tree of devices in it.
const (
	maxHeader = 16 << 10
	maxBody   = 4 << 20
)

var (
	errStranger = errors.New("another process listens at its socket")
	errHTTP     = errors.New("no HTTP answer")
)

// statusError is an answer that says no.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the monitor answered %d: %.200q", e.status, e.text)
}

// call makes one request of the API at path, which must be process pid's, and gives the
// body of the answer.
func call(ctx context.Context, path string, pid int, method, resource, body string) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if peer := peerOf(conn); peer != pid {
		return nil, fmt.Errorf("%w (pid %d)", errStranger, peer)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := method + " " + resource + " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
	if body != "" {
		request += "Content-Type: application/json\r\n"
	}
	if body != "" || method == "PUT" {
		request += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"+body); err != nil {
		return nil, because(ctx, err)
	}
	status, answer, err := readAnswer(conn)
	switch {
	case err != nil:
		return nil, because(ctx, err)
	case status < 200 || status > 299:
		return nil, &statusError{status, string(answer)}
	}
	return answer, nil
}

// because is ctx's error where that has ended, which is why err came.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// peerOf is the process that listens at the other end of c: 0 if unknown.
func peerOf(c net.Conn) (pid int) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// readAnswer reads an HTTP answer.
func readAnswer(r io.Reader) (status int, body []byte, err error) {
	in := bufio.NewReader(io.LimitReader(r, maxHeader+maxBody))
	head := textproto.NewReader(in)
	line, err := head.ReadLine()
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errHTTP, err)
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") || status < 100 || status > 999 {
		return 0, nil, fmt.Errorf("%w but %.80q", errHTTP, line)
	}
	fields, err := head.ReadMIMEHeader()
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errHTTP, err)
	}
	size := 0
	if s := fields.Get("Content-Length"); s != "" {
		if size, err = strconv.Atoi(s); err != nil || size < 0 || size > maxBody {
			return 0, nil, fmt.Errorf("%w: a body of %.20q bytes", errHTTP, s)
		}
	}
	if status == 204 || size == 0 {
		return status, nil, nil
	}
	body, err = io.ReadAll(io.LimitReader(in, int64(size)))
	if err == nil && len(body) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errHTTP, err)
	}
	return status, body, nil
}
