package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-socket",
		Title:     "Sockets that a table of the kernel leaves out, or that no process has",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source:    "the hash tables and lists of TCP, UDP and packet sockets, against the descriptors of all processes, files registered with io_uring, in flight and mapped",
		Proves: `A process has a socket that listens, is connected or bound, and the table that ss and netstat go by, and in which every such socket is, does not have it: somebody took it
out. Or a socket has a file, as those of processes do, and no process has it: the process is hidden from the task list.`,
		Blind: `Sockets that the kernel opened for itself, and those whose process closed them (TIME_WAIT and the like), need no process. A socket that the kernel took over from a process which
then ended (nbd, usbip, 9p) looks as if its process were hidden. Sockets that are left out of what is shown by a changed function rather than of the tables: the checks of code and pointers find
those. Unix, netlink and raw sockets.`,
		Next: `The finding names both ends of the connection, and the process if one has it. Without one look for it with hidden-process. "outsight struct TARGET sock ADDRESS" shows the
socket.`,
		Example: `A rootkit took a connection out of the table of established ones:

    $ outsight check lab:demo --only hidden-socket -o json | jq -r '.title, .seen'
    tcp 10.0.2.15:44386 - 198.51.100.7:443 of process 531 is missing from the table of its protocol
    reached by fd`,
		Kept: true,
		Run:  hiddenSockets,
	})
}

// hiddenSocketLayout is how a sock leads to its file.
type hiddenSocketLayout struct{ socket, file, count, refs kobj.Field }

// released reports whether the last reference to a file was given up: it is being closed then, by a
// task or a worker that may have to wait for a processor (__fput, delayed_fput).
func (o *hiddenSocketLayout) released(r *kobj.Reader, file virt.Addr) bool {
	switch {
	case o.refs.Present():
		return r.Uint(file, o.refs)>>63 != 0 // FILE_REF_DEAD, since 6.13 (90ee6ed776c0)
	case o.count.Present():
		return r.Uint(file, o.count) == 0
	}
	return false
}

func hiddenSockets(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "files of sockets", func(r *kobj.Resolver, o *hiddenSocketLayout) {
			o.socket, o.file = r.Field("sock", "sk_socket"), r.Field("socket", "file")
			o.count, o.refs = r.Optional("file", "f_count"), r.Optional("file", "f_ref.refcnt.counter")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		ks, err := s.Sockets()
		if err != nil {
			yield(nil, err)
			return
		}
		if len(ks.holes) > 0 {
			return // what is missing may be in what could not be read
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		mapped := ps.mappedFiles()
		for _, k := range ks.all {
			f, err := s.hiddenSocket(ctx, k, o, mapped)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// keepers are functions of the kernel in which a task has files that no process shows: those of a child that is on no list yet
// (copy_process copies them before it makes namespaces, which takes seconds on a busy machine), and those of a process
// that ends, one after the other (exit_files). The child's page tables are copied by a task that runs, for seconds under an emulator.
var keepers = []string{"copy_process", "do_exit"}

// mappedFiles are the files that mappings keep open, as those of a packet socket's ring do.
func (ps *programs) mappedFiles() map[virt.Addr]bool {
	files := map[virt.Addr]bool{}
	for _, p := range ps.all {
		for _, m := range p.maps {
			if m.File != 0 {
				files[m.File] = true
			}
		}
	}
	return files
}

// maxFile is how large a struct file is, in bytes, at least: it has 184 since 6.12, 232 before.
const maxFile = 184

func (s *Subject) hiddenSocket(ctx context.Context, k *network.Socket, o *hiddenSocketLayout, mapped map[virt.Addr]bool) (*Finding, error) {
	f := &Finding{
		Confidence: Certain,
		Seen:       "reached by " + k.SeenIn.String(),
		Object:     Object{Kind: "socket", Addr: k.Addr},
		Evidence:   []Evidence{{Text: "its struct sock, in state " + k.StateName(), Addr: k.Addr}},
		Basis:      "tables of the guest's kernel against descriptors of its processes, at one look",
		Show:       fmt.Sprintf("outsight struct {} sock %#x", uint64(k.Addr)),
	}
	switch {
	case k.SeenIn&network.SeenInTable == 0 && inTables(k):
		f.Title = describeSocket(k) + " is missing from the table of its protocol"
		if len(k.PIDs) > 0 {
			f.Title = fmt.Sprintf("%s of process %d is missing from the table of its protocol", describeSocket(k), k.PIDs[0])
			f.Show = fmt.Sprintf("outsight sockets {} --where '%d in pids'", k.PIDs[0])
		}
		f.Expected = "in the table of its protocol"
	// The paths of an MPTCP connection have its processes, and no descriptor of their own.
	case k.SeenIn == network.SeenInTable && len(k.PIDs) == 0 && (inTables(k) || k.Protocol == "raw") && k.Inode != 0:
		r := s.Linux.Reader()
		socket := r.Pointer(k.Addr, o.socket)
		if socket == 0 || r.Err != nil {
			return nil, r.Err
		}
		file := r.Pointer(socket, o.file)
		if file == 0 || r.Err != nil || mapped[file] {
			return nil, r.Err // the kernel's own, or kept by a mapping
		}
		// It may be closed by a task that has to wait: no descriptor leads to it from then on.
		closing, err := s.Linux.AtWorkOn(ctx, file, maxFile)
		if err == nil && !closing {
			closing, err = s.Linux.AtWorkIn(ctx, keepers...)
		}
		f.Explained = err == nil && closing || o.released(&r, file)
		f.Confidence = Likely
		f.Title = describeSocket(k) + " has a file that no process has"
		f.Expected = "a descriptor of a process, for a socket that is an open file"
		f.Evidence = append(f.Evidence, Evidence{Text: "its struct file", Addr: file})
		f.Busy = f.Explained
	default:
		return nil, nil
	}
	return f, nil
}

// inTables reports whether a socket is in the table of its protocol for as long as it is in
// its state.
func inTables(k *network.Socket) bool {
	const established, synSent, closeWait, listen = 1, 2, 8, 10
	switch k.Protocol {
	case "tcp":
		return k.State == established || k.State == synSent || k.State == closeWait || k.State == listen
	case "udp":
		return k.LocalPort != 0
	case "packet":
		return true
	}
	return false
}
