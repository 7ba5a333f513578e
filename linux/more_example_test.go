package linux_test

import (
	"fmt"
	"log"
)

func ExampleProcessReader_SignalsOf() {
	l := system.NewProcessReader()
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		s, err := l.SignalsOf(t)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(s.PID, s.Comm, s.Blocked.Names(), s.Caught.Names())
	}
}

func ExampleProcessReader_TracingOf() {
	l := system.NewProcessReader()
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if p, err := l.TracingOf(t); err == nil && p != nil {
			fmt.Println(p.PID, p.Comm, "is traced by", p.Tracer, p.TracerComm)
		}
	}
}

func ExampleSystem_FileLocks() {
	for l, err := range system.FileLocks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(l.Kind, l.Mode, l.PID, l.Path)
	}
}

func ExampleUnwinder_StackOf() {
	u, err := system.Unwinder(ctx)
	if err != nil {
		log.Print(err)
		return
	}
	for t, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		s, err := u.StackOf(t)
		if err != nil {
			log.Print(err)
			continue
		}
		for _, a := range s.Frames {
			fmt.Println(s.PID, s.Comm, u.Owners().CodeAt(a).Function())
		}
	}
}

func ExampleSystem_Symbols() {
	for s, err := range system.Symbols(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		if s.Module == "dummy" {
			fmt.Printf("%#x %c %s\n", uint64(s.Address), s.Type, s.Name)
		}
	}
}
