package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// client asks an instance. One that is killed gives no answer: then another one may be asked the same.
type client struct {
	http    *http.Client
	address string
}

// statusError is an answer that says no.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.text) }

// ask sends one request. Out is where the answer goes, nil when it does not count. The status is 0 where there was no answer.
func (c *client) ask(ctx context.Context, method, path string, in, out any) (status int, err error) {
	var content io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, content)
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err // it was killed while it answered
	}
	if resp.StatusCode/100 != 2 {
		var says struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &says) != nil {
			says.Error = string(b)
		}
		return resp.StatusCode, &statusError{resp.StatusCode, says.Error}
	}
	if out != nil {
		err = json.Unmarshal(b, out)
	}
	return resp.StatusCode, err
}
