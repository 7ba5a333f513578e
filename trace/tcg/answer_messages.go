package tcg

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/trace/syscall"
)

const (
	// maxMessages is how many messages of one recvmmsg(2) are fetched, and maxMessage how much of each: netlink makes no
	// longer ones of a dump (netlink_dump, since 4.4 32 KiB at most).
	maxMessages = 16
	maxMessage  = 32 << 10
)

// Words of struct mmsghdr, each as long as a pointer of the ABI.
const (
	messageVector = 2 // msg_hdr.msg_iov
	messageParts  = 3 // msg_hdr.msg_iovlen
	messageFlags  = 6 // msg_hdr.msg_flags
	messageLength = 7 // msg_len
	messageWords  = 8
)

// messagesPieces are the array of messages that recvmmsg(2) filled in, and what it wrote of each to the first part of its buffer.
func messagesPieces(w uint32) []syscall.Piece {
	all := []syscall.Piece{{Arg: 1, When: syscall.Return, Size: messageWords * w, Count: syscall.Count{From: syscall.Result}, Limit: maxItem}}
	for i := range uint32(maxMessages) {
		at := i * messageWords * w
		all = append(all, syscall.Piece{
			Arg: 1, When: syscall.Return, Above: i, Deref: []uint32{at + messageVector*w, 0}, Size: 1,
			Count: syscall.Count{From: syscall.Member, N: at + messageLength*w, Width: 4}, Limit: maxMessage,
		})
	}
	return all
}

// joinMessages makes one answer of all messages that recvmmsg(2) returned, as if they had been read at once: each begins at a multiple of
// four, as in one message that has several of netlink's.
func (c *call) joinMessages(a *Answer, w int) {
	le := binary.LittleEndian
	array, n := a.Data, min(a.Result, maxMessages)
	a.Data, a.Status = nil, syscall.Unreadable
	if int64(len(array)) < n*int64(messageWords*w) {
		return
	}
	var data []byte
	for i := range int(n) {
		word := func(n int) uint32 { return le.Uint32(array[(i*messageWords+n)*w:]) }
		size := word(messageLength)
		var message []byte
		for _, p := range c.data {
			if int(p.tag) == i+1 && p.status != syscall.Unreadable {
				message = c.bytes[p.from:p.to]
			}
		}
		const truncated = 0x20 // MSG_TRUNC: there was more than found room
		if word(messageParts) != 1 || word(messageFlags)&truncated != 0 || uint64(size) > uint64(len(message)) {
			return
		}
		data = append(data, message[:size]...)
		data = append(data, make([]byte, -size&3)...)
	}
	if a.Data, a.Status = data, syscall.Whole; a.Result > n {
		a.Status = syscall.Cut
	}
	a.Result, a.Messages = int64(len(data)), int(n)
}
