package nbd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/outsight-vmi/outsight/disk/nbd"
)

// An export is read like any other device.
func Example() {
	ours, theirs := net.Pipe()
	go func() { // a server that has one answer
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		answer := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 0x67446698<<32), 1)
		_, _ = theirs.Write(bytes.Join([][]byte{greeting(5, 1, 4096), answer, []byte("hello")}, nil))
	}()
	c, err := nbd.New(ours, "disk0")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, c.Size())
	if _, err := c.ReadAt(b, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b)
	// Output: hello
}
