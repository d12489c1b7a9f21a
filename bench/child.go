package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// childCommand is the hidden subcommand that runs one repetition of a side in a
// process of its own: bench child ROW SIDE REP-AS-JSON. It prints the result as JSON.
const childCommand = "child"

// inChild runs one repetition in a new process.
func inChild(row, side string, r *rep) (result, error) {
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return result{}, err
	}
	cmd := exec.Command(self, childCommand, row, side, string(encoded))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return result{}, fmt.Errorf("%s process: %w: %s", side, err, bytes.TrimSpace(stderr.Bytes()))
	}
	var res result
	if err := json.Unmarshal(stdout.Bytes(), &res); err != nil {
		return result{}, fmt.Errorf("%s process: %w in %q", side, err, stdout.Bytes())
	}
	return res, nil
}

// victimName stands in the place of a side's name for ours' victim.
const victimName = "victim"

// victimReady is what a victim prints when it may be killed.
const victimReady = "ready\n"

// killVictim starts the victim of our side of a row in a new process, and kills it
// without warning once it says that it is ready: in the middle of whatever it does.
func killVictim(row string, r *rep) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, childCommand, row, victimName, string(encoded))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := make([]byte, len(victimReady))
	_, err = io.ReadFull(stdout, said)
	killed := cmd.Process.Kill()
	cmd.Wait() // it says that the process was killed, which is what we wanted
	if err != nil {
		return fmt.Errorf("victim: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return killed
}

// childMain is the other end of inChild.
func childMain(args []string, stdout, stderr io.Writer) int {
	res, err := runChild(args)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(res)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func runChild(args []string) (result, error) {
	if len(args) != 3 {
		return result{}, fmt.Errorf("%s is for the program itself: row, side and repetition are needed", childCommand)
	}
	var one rep
	if err := json.Unmarshal([]byte(args[2]), &one); err != nil {
		return result{}, fmt.Errorf("repetition: %w", err)
	}
	for _, r := range rows() {
		if r.name != args[0] {
			continue
		}
		s, ok := r.limit, true
		if args[1] != sideNames[0] {
			s, ok = ours[r.name]
		}
		if !ok {
			return result{}, fmt.Errorf("nothing of ours is registered for %s", r.name)
		}
		if args[1] == victimName {
			return result{}, s.victim(&one)
		}
		return s.run(&one)
	}
	return result{}, fmt.Errorf("no row %q", args[0])
}
