package gdb

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// description is what QEMU 10.0 sends for an x86-64 machine, shortened.
var description = map[string]string{
	"target.xml": `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>i386:x86-64</architecture>
<xi:include href="i386-64bit.xml"/></target>`,
	"i386-64bit.xml": `<?xml version="1.0"?><!DOCTYPE feature SYSTEM "gdb-target.dtd">
<feature name="org.gnu.gdb.i386.core"><flags id="x" size="4"><field name="CF" start="0" end="0"/></flags>
<reg name="rax" bitsize="64" type="int64" regnum="0"/><reg name="rdi" bitsize="64" type="int64"/>
<reg name="rsp" bitsize="64" type="data_ptr"/><reg name="rip" bitsize="64" type="code_ptr"/>
<reg name="eflags" bitsize="32" type="x"/><reg name="st0" bitsize="80" type="i387_ext"/><reg name="gs_base" bitsize="64" type="int"/></feature>`,
}

// stub is a gdb stub as QEMU's: it stops the machine when somebody connects, and for each byte while
// it runs; it keeps what was set, and acknowledges as QEMU does.
type stub struct {
	t    *testing.T
	path string
	l    net.Listener

	mu       sync.Mutex
	conn     net.Conn
	running  bool
	may      bool // a stop reply was asked for
	waits    bool // for an acknowledgement
	set      map[string]bool
	rip      uint64
	flags    uint32
	slots    int // free ones of hardware breakpoints
	asked    []string
	noAck    bool // it offers not to acknowledge
	acking   bool
	resumed  chan struct{}
	spurious string // what is sent before the next answer
}

func newStub(t *testing.T) *stub {
	t.Helper()
	s := &stub{t: t, path: filepath.Join(t.TempDir(), "gdb"), set: map[string]bool{}, slots: 4, running: true, rip: 0x1000, acking: true, resumed: make(chan struct{}, 100)}
	var err error
	if s.l, err = net.Listen("unix", s.path); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			s.serve(c)
		}
	}()
	t.Cleanup(func() {
		s.l.Close()
		s.mu.Lock()
		if s.conn != nil {
			s.conn.Close()
		}
		s.mu.Unlock()
		<-done
	})
	return s
}

func (s *stub) serve(c net.Conn) {
	defer c.Close()
	s.mu.Lock()
	s.conn = c
	s.stop(2)
	s.mu.Unlock()
	r := bufio.NewReader(c)
	for {
		b, err := r.ReadByte()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.byte(b, r)
		s.mu.Unlock()
	}
}

// byte takes one as gdb_read_byte does.
func (s *stub) byte(b byte, r *bufio.Reader) {
	if s.waits {
		if b == '+' || b == '$' {
			s.waits = false
		}
		if b != '$' {
			return
		}
	}
	if s.running {
		s.may = s.may || b == 3
		if b != 3 {
			s.may = false
		}
		s.stop(2)
		return
	}
	if b != '$' {
		return
	}
	content, err := r.ReadString('#')
	if err != nil {
		return
	}
	_, _ = r.Discard(2)
	content = strings.TrimSuffix(content, "#")
	if s.acking {
		fmt.Fprint(s.conn, "+")
	}
	s.asked = append(s.asked, content)
	if s.spurious != "" {
		s.put(s.spurious)
		s.spurious = ""
	}
	s.command(content)
}

func (s *stub) put(content string) {
	s.waits = s.acking
	_, _ = s.conn.Write(appendPacket(nil, content))
}

func (s *stub) stop(signal int) {
	was := s.running
	s.running = false
	if was && s.may {
		s.may = false
		s.put(fmt.Sprintf("T%02xthread:01;", signal))
	}
}

// hit is a breakpoint that is hit: the machine stops.
func (s *stub) hit(rip uint64, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rip, s.running = rip, false
	if s.may {
		s.may = false
		s.put("T05thread:02;" + reason)
	}
}

func (s *stub) run() {
	s.running, s.may = true, true
	s.resumed <- struct{}{}
}

func (s *stub) command(p string) {
	switch {
	case strings.HasPrefix(p, "qSupported"):
		s.put("PacketSize=1000;qXfer:features:read+")
	case p == "QStartNoAckMode":
		if !s.noAck {
			s.put("")
			return
		}
		s.put("OK")
		s.acking, s.waits = false, false
	case strings.HasPrefix(p, "qXfer:features:read:"):
		var off, size int
		name, at, _ := strings.Cut(strings.TrimPrefix(p, "qXfer:features:read:"), ":")
		fmt.Sscanf(at, "%x,%x", &off, &size)
		text := description[name]
		size = min(size, 100) // in pieces
		if off+size >= len(text) {
			s.put("l" + text[off:])
			return
		}
		s.put("m" + text[off:off+size])
	case p[0] == 'Z':
		if p[:2] == "Z1" {
			if s.slots == 0 {
				s.put("E22")
				return
			}
			s.slots--
		}
		s.set[p[1:]] = true
		s.put("OK")
	case p[0] == 'z':
		if !s.set[p[1:]] {
			s.put("E22")
			return
		}
		delete(s.set, p[1:])
		s.put("OK")
	case p == "g":
		s.put(strings.Repeat("00", 8) + "efbeadde00000000" + strings.Repeat("xx", 8) + little(s.rip, 8) + little(uint64(s.flags), 4) + strings.Repeat("00", 10) + little(0xffff888000000000, 8))
	case p[0] == 'P':
		name, value, _ := strings.Cut(p[1:], "=")
		var b [8]byte
		if !unhex(b[:len(value)/2], []byte(value)) {
			s.put("E22")
			return
		}
		v := uint64(0)
		for i := range b {
			v |= uint64(b[i]) << (8 * i)
		}
		switch name {
		case "3":
			s.rip = v
		case "4":
			s.flags = uint32(v)
		}
		s.put("OK")
	case p[0] == 'm':
		var a, n int
		fmt.Sscanf(p, "m%x,%x", &a, &n)
		s.put(strings.Repeat("5a", n))
	case p == "vCont;c":
		s.run()
	case p == "qRcmd,636f6e74": // cont
		s.put("OK")
		s.running, s.may = true, false
		s.resumed <- struct{}{}
	case strings.HasPrefix(p, "vCont;s:"):
		s.rip++
		s.put("T05thread:" + p[len("vCont;s:"):] + ";")
	case p[0] == 'H':
		s.put("OK")
	case p == "D":
		clear(s.set)
		s.running, s.may = true, false
		s.put("OK")
	default:
		s.put("")
	}
}

func little(v uint64, n int) (s string) {
	for range n {
		s += fmt.Sprintf("%02x", v&0xff)
		v >>= 8
	}
	return s
}

func (s *stub) state() (running bool, set int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, len(s.set)
}

func dialed(t *testing.T, s *stub) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
