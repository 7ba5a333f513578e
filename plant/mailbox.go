package plant

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/virt"
)

// state is how far the job is that the mailbox names.
type state uint32

const (
	stateNone    state = iota
	stateArmed         // the work item leads to the blob, or will in a moment
	stateRunning       // the blob is at it
	stateDone
	stateFailed // at a step: what was made before stays, until it is removed
)

func (s state) String() string {
	names := [...]string{"empty", "armed", "running", "done", "failed"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("invalid state %d", uint32(s))
}

// Where things are in the mailbox, which is one page. The blob knows some of them.
const (
	atVersion = 0x08
	atState   = 0x0c
	atSerial  = 0x10
	atJob     = 0x18
	atStep    = 0x20 // how many steps of the job are done
	atError   = 0x24 // of the step that failed, negative
	atID      = 0x28 // of the planting, 16 random bytes
	atWhen    = 0x38 // by the host's clock, in nanoseconds since 1970
	atCode    = 0x40 // of the blob
	atData    = 0x48 // jobs, attributes and programs
	atRemoval = 0x50 // the job that removes all, ready to be run
	atSizes   = 0x58 // of code and data
	atCounts  = 0x60 // programs, maps
	atSum     = 0x68 // of code and data, FNV-1a
	atObjects = 0x80 // descriptors: each map, each program, each link; -1: none, or closed

	mailboxSize    = 4096
	mailboxVersion = 2
	maxObjects     = 512 // descriptors
)

var mailboxMagic = [8]byte{'o', 'u', 't', 's', 'i', 'g', 'h', 't'}

// mailbox is what the guest and its monitors know of a planting.
type mailbox struct {
	state      state
	serial     uint64
	job        virt.Addr
	steps      uint32
	err        int32
	id         [16]byte
	when       time.Time
	code, data virt.Addr
	removal    virt.Addr
	codeSize   uint32
	dataSize   uint32
	shape      shape
	sum        uint64
	objects    []int32
}

var errNoMailbox = errors.New("no mailbox of outsight's")

var le = binary.LittleEndian

func (m *mailbox) encode() []byte {
	b := make([]byte, mailboxSize)
	copy(b, mailboxMagic[:])
	le.PutUint32(b[atVersion:], mailboxVersion)
	le.PutUint32(b[atState:], uint32(m.state))
	le.PutUint64(b[atSerial:], m.serial)
	le.PutUint64(b[atJob:], uint64(m.job))
	le.PutUint32(b[atStep:], m.steps)
	le.PutUint32(b[atError:], uint32(m.err))
	copy(b[atID:], m.id[:])
	le.PutUint64(b[atWhen:], uint64(m.when.UnixNano()))
	le.PutUint64(b[atCode:], uint64(m.code))
	le.PutUint64(b[atData:], uint64(m.data))
	le.PutUint64(b[atRemoval:], uint64(m.removal))
	le.PutUint32(b[atSizes:], m.codeSize)
	le.PutUint32(b[atSizes+4:], m.dataSize)
	le.PutUint32(b[atCounts:], uint32(m.shape.programs))
	le.PutUint32(b[atCounts+4:], uint32(m.shape.maps))
	le.PutUint64(b[atSum:], m.sum)
	for i, fd := range m.objects {
		le.PutUint32(b[atObjects+4*i:], uint32(fd))
	}
	return b
}

// parseMailbox takes a mailbox apart. Nothing in it is believed: the guest can have written it.
func parseMailbox(b []byte) (*mailbox, error) {
	if len(b) < mailboxSize || !bytes.Equal(b[:8], mailboxMagic[:]) {
		return nil, errNoMailbox
	}
	if v := le.Uint32(b[atVersion:]); v != mailboxVersion {
		return nil, fmt.Errorf("a mailbox of version %d, which this outsight does not know: use the one that planted", v)
	}
	m := &mailbox{
		state: state(le.Uint32(b[atState:])), serial: le.Uint64(b[atSerial:]), job: virt.Addr(le.Uint64(b[atJob:])),
		steps: le.Uint32(b[atStep:]), err: int32(le.Uint32(b[atError:])), when: time.Unix(0, int64(le.Uint64(b[atWhen:]))),
		code: virt.Addr(le.Uint64(b[atCode:])), data: virt.Addr(le.Uint64(b[atData:])), removal: virt.Addr(le.Uint64(b[atRemoval:])),
		codeSize: le.Uint32(b[atSizes:]), dataSize: le.Uint32(b[atSizes+4:]), sum: le.Uint64(b[atSum:]),
	}
	copy(m.id[:], b[atID:])
	programs, maps := int(le.Uint32(b[atCounts:])), int(le.Uint32(b[atCounts+4:]))
	if m.shape = (shape{maps, programs, programs - maps + 1}); !m.shape.valid() {
		return nil, fmt.Errorf("the mailbox has %d maps and %d programs, which nothing that is planted has", maps, programs)
	}
	for i := range m.shape.objects() {
		m.objects = append(m.objects, int32(le.Uint32(b[atObjects+4*i:])))
	}
	return m, nil
}
