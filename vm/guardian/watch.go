package guardian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// maxRecipe bounds a recipe, in bytes.
const maxRecipe = 64 << 10

// patienceResume is how long a guardian tries. Someone else may have the monitor; after
// that time whoever it is knows better.
const patienceResume = 10 * time.Minute

// The descriptors that a guardian is started with.
const (
	fdPipe  = 3
	fdReady = 4
)

// role is the kind of recipe that this process is the guardian of; "": it is none.
var role string

func init() {
	if role = os.Getenv(variable); role == "" {
		return
	}
	os.Unsetenv(variable)
	// Only the end of the process that is watched ends a guardian. It has no terminal,
	// but may be killed with the others of its user or service.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP)
}

// watch is what a guardian does. It returns its exit status.
func watch(resume Resume) int {
	name := fmt.Sprintf("%s: guardian of process %d", os.Args[0], os.Getppid())
	pipe := bufio.NewReaderSize(os.NewFile(fdPipe, "pipe"), maxRecipe+1)
	recipe, err := pipe.ReadSlice('\n')
	if err != nil {
		return 2 // the process ended before it had said anything
	}
	recipe = append([]byte(nil), recipe...)
	ready := os.NewFile(fdReady, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return 2
	}
	ready.Close()
	armed := false
	for {
		word, err := pipe.ReadByte()
		if err != nil {
			break
		}
		switch word {
		case wordArmed:
			armed = true
		case wordDone:
			return 0
		}
	}
	if !armed {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), patienceResume)
	defer cancel()
	if err := resume(ctx, recipe); err != nil {
		fmt.Fprintf(os.Stderr, "%s, which ended while it had paused a machine: the machine may still be paused: %v\n", name, err)
		return 1
	}
	return 0
}

// Retry calls f until it succeeds, fails permanently, or ctx ends, for use by a [Resume].
// f returns [ErrAgain], wrapped or not, to be called again.
func Retry(ctx context.Context, f func(ctx context.Context) error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := f(ctx)
		if !errors.Is(err, ErrAgain) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// ErrAgain says that something is worth another try.
var ErrAgain = errors.New("retrying")
