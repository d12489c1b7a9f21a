package kafkaload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// What is said over the pipe, a line each way: the child begins with its address.
const (
	askCPU       = "cpu"     // nanoseconds
	askProfile   = "profile" // PATH: profile the processor from now on; "ok"
	askProfiled  = "profiled"
	okay         = "ok"
	readyPrefix  = "listening "
	heapSuffix   = ".heap"
	startTimeout = 30 * time.Second
)

// Child is a server in a process of its own.
type Child struct {
	Addr   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// Start starts cmd, which has to call Serve, and waits until it listens.
func Start(cmd *exec.Cmd) (*Child, error) {
	c := &Child{cmd: cmd}
	cmd.Stderr = &c.stderr
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	slow := time.AfterFunc(startTimeout, func() { cmd.Process.Kill() })
	line, err := c.out.ReadString('\n')
	slow.Stop()
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), readyPrefix)
	if err != nil || !ok {
		c.in.Close()
		cmd.Process.Kill()
		return nil, fmt.Errorf("the server did not start: %w", errors.Join(err, cmd.Wait(), c.said()))
	}
	c.Addr = addr
	return c, nil
}

func (c *Child) said() error {
	if s := bytes.TrimSpace(c.stderr.Bytes()); len(s) > 0 {
		return fmt.Errorf("it said: %s", s)
	}
	return nil
}

func (c *Child) ask(line string) (string, error) {
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		return "", err
	}
	answer, err := c.out.ReadString('\n')
	return strings.TrimSpace(answer), err
}

// CPU is what the process took of the processor so far.
func (c *Child) CPU() (time.Duration, error) {
	answer, err := c.ask(askCPU)
	if err != nil {
		return 0, fmt.Errorf("the server is gone: %w", err)
	}
	n, err := strconv.ParseInt(answer, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the server's processor time: %w", err)
	}
	return time.Duration(n), nil
}

// Profile profiles the process from now on, into a file.
func (c *Child) Profile(path string) error { return c.command(askProfile + " " + path) }

// Profiled ends the profile, and writes what was allocated beside it.
func (c *Child) Profiled() error { return c.command(askProfiled) }

func (c *Child) command(line string) error {
	answer, err := c.ask(line)
	if err == nil && answer != okay {
		err = errors.New(answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// Stop has the server end by itself, and waits for it.
func (c *Child) Stop() error {
	c.in.Close()
	slow := time.AfterFunc(startTimeout, func() { c.cmd.Process.Kill() })
	defer slow.Stop()
	io.Copy(io.Discard, c.out)
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("the server's end: %w", errors.Join(err, c.said()))
	}
	return nil
}

// Serve is the child's part: it says where it listens, answers what it is asked, and
// returns when its parent has gone or wants no more.
func Serve(addr string) error {
	if _, err := fmt.Printf("%s%s\n", readyPrefix, addr); err != nil {
		return err
	}
	var profile *os.File
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		what, path, _ := strings.Cut(lines.Text(), " ")
		answer := okay
		var err error
		switch what {
		case askCPU:
			var d time.Duration
			d, err = processCPU()
			answer = strconv.FormatInt(int64(d), 10)
		case askProfile:
			if profile, err = os.Create(path); err == nil {
				err = pprof.StartCPUProfile(profile)
			}
		case askProfiled:
			err = endProfile(profile)
		default:
			err = fmt.Errorf("unknown command %q", what)
		}
		if err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Println(answer); err != nil {
			return err
		}
	}
	return nil
}

func endProfile(profile *os.File) error {
	if profile == nil {
		return errors.New("nothing is profiled")
	}
	pprof.StopCPUProfile()
	heap, err := os.Create(profile.Name() + heapSuffix)
	if err != nil {
		return errors.Join(err, profile.Close())
	}
	runtime.GC()
	return errors.Join(pprof.Lookup("allocs").WriteTo(heap, 0), heap.Close(), profile.Close())
}
