package tcg

import (
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/trace/syscall"
)

// TestJoinMessages: the messages of one recvmmsg(2) are one answer, of which nothing is missing.
func TestJoinMessages(t *testing.T) {
	for _, w := range []int{4, 8} {
		received := func(texts ...string) *call {
			c := &call{}
			item := func(tag uint8, status syscall.Status, b []byte) {
				from := len(c.bytes)
				c.bytes = append(c.bytes, b...)
				c.data = append(c.data, piece{tag, status, from, len(c.bytes)})
			}
			array := make([]byte, len(texts)*messageWords*w)
			for i, text := range texts {
				binary.LittleEndian.PutUint32(array[(i*messageWords+messageLength)*w:], uint32(len(text)))
				binary.LittleEndian.PutUint32(array[(i*messageWords+messageParts)*w:], 1)
			}
			item(0, syscall.Whole, array)
			for i, text := range texts[:min(len(texts), maxMessages)] {
				item(uint8(i+1), syscall.Whole, []byte(text))
			}
			return c
		}
		join := func(c *call, n int64) Answer {
			a := Answer{Result: n, Data: c.bytes[c.data[0].from:c.data[0].to]}
			c.joinMessages(&a, w)
			return a
		}
		if a := join(received("abcde", "fghi", ""), 3); string(a.Data) != "abcde\x00\x00\x00fghi" || a.Result != 12 || a.Status != syscall.Whole || a.Messages != 3 {
			t.Errorf("%d bits: %q %+v", 8*w, a.Data, a)
		}
		many := make([]string, maxMessages+1)
		if a := join(received(many...), int64(len(many))); a.Status != syscall.Cut || a.Messages != maxMessages {
			t.Errorf("%d bits, more than are fetched: %+v", 8*w, a)
		}
		c := received("abcde", "fghi")
		c.data[2].status = syscall.Unreadable
		if a := join(c, 2); a.Status != syscall.Unreadable {
			t.Errorf("%d bits, one that cannot be read: %+v", 8*w, a)
		}
		c = received("abcde", "fghi")
		c.data[2].to--
		if a := join(c, 2); a.Status != syscall.Unreadable {
			t.Errorf("%d bits, one that was cut: %+v", 8*w, a)
		}
		for word, value := range map[int]byte{messageParts: 2, messageFlags: 0x20} {
			c = received("abcde")
			c.bytes[word*w] = value
			if a := join(c, 1); a.Status != syscall.Unreadable {
				t.Errorf("%d bits, word %d is %d: %+v", 8*w, word, value, a)
			}
		}
		if a := join(received("abcde"), 2); a.Status != syscall.Unreadable {
			t.Errorf("%d bits, more than the array has: %+v", 8*w, a)
		}
	}
}
