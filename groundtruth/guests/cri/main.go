// Cri starts a pod of one container as Kubernetes' kubelet does: through the
// Container Runtime Interface (CRI, runtime.v1) of the runtime that listens at a socket.
//
// CRI is gRPC, of which a call is one POST over HTTP/2: two of them are not worth a
// dependency. Messages are made by their field numbers (k8s.io/cri-api, api.proto).
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

const podUID = "0f2e1d3c-1111-2222-3333-444455556666"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET IMAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(socket, image string) error {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	c := client{http.Client{Transport: &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
	log := filepath.Join("/var/lib/kubelet/pods", podUID, "containers/app/8f1c2a3b")
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(log, nil, 0o666); err != nil {
		return err
	}
	const node = 2 // NamespaceMode NODE: no network of its own, which would take a CNI plugin
	unit := "kubepods-besteffort-pod" + bytesOf(podUID) + ".slice"
	sandbox := message{}.
		bytes(1, message{}.text(1, "web-0").text(2, podUID).text(3, "default")). // metadata
		pairs(6, "io.kubernetes.pod.name", "web-0", "io.kubernetes.pod.namespace", "default", "io.kubernetes.pod.uid", podUID).
		bytes(8, message{}. // linux
					text(1, "/kubepods.slice/kubepods-besteffort.slice/"+unit).           // cgroup_parent
					bytes(2, message{}.bytes(1, message{}.number(1, node).number(2, 1)))) // security_context.namespace_options
	pod, err := c.call("RunPodSandbox", message{}.bytes(1, sandbox))
	if err != nil {
		return err
	}
	container := message{}.
		bytes(1, message{}.text(1, "app")). // metadata
		bytes(2, message{}.text(1, image)). // image
		text(3, "/bin/busybox").text(4, "sleep").text(4, "1000000").
		bytes(7, message{}.text(1, "/dev/termination-log").text(2, log)). // mounts
		pairs(9, "io.kubernetes.container.name", "app", "io.kubernetes.pod.uid", podUID).
		bytes(15, message{}.bytes(2, message{}.bytes(3, message{}.number(1, node).number(2, 1)))) // linux
	id, err := c.call("CreateContainer", message{}.text(1, pod).bytes(2, container).bytes(3, sandbox))
	if err != nil {
		return err
	}
	_, err = c.call("StartContainer", message{}.text(1, id))
	return err
}

// bytesOf writes a UID as systemd's unit names have it.
func bytesOf(uid string) string {
	return string(bytes.ReplaceAll([]byte(uid), []byte("-"), []byte("_")))
}

// message is a protobuf message.
type message []byte

func (m message) bytes(field protowire.Number, b []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), b)
}

func (m message) text(field protowire.Number, s string) message { return m.bytes(field, []byte(s)) }

func (m message) number(field protowire.Number, n uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), n)
}

// pairs are a map's keys and values, by turns.
func (m message) pairs(field protowire.Number, of ...string) message {
	for i := 0; i+1 < len(of); i += 2 {
		m = m.bytes(field, message{}.text(1, of[i]).text(2, of[i+1]))
	}
	return m
}

type client struct{ http.Client }

// call gives the first field of the answer, an identifier.
func (c *client) call(method string, m message) (string, error) {
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))) // not compressed
	req, err := http.NewRequest(http.MethodPost, "http://cri/runtime.v1.RuntimeService/"+method, bytes.NewReader(append(body, m...)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	for _, h := range []http.Header{resp.Header, resp.Trailer} {
		if status := h.Get("Grpc-Status"); status != "" && status != "0" {
			return "", fmt.Errorf("%s: status %s: %s", method, status, h.Get("Grpc-Message"))
		}
	}
	if len(answer) <= 5 { // of StartContainer, nothing
		return "", nil
	}
	_, _, n := protowire.ConsumeTag(answer[5:])
	if n < 0 {
		return "", fmt.Errorf("%s: %w", method, protowire.ParseError(n))
	}
	id, n := protowire.ConsumeBytes(answer[5+n:])
	if n < 0 {
		return "", errors.Join(errors.New(method), protowire.ParseError(n))
	}
	return string(id), nil
}
