package nexmark

import (
	"encoding/binary"
	"errors"
)

// Person is one who sells or bids. Times are milliseconds since 1970.
type Person struct {
	ID                                   int64
	At                                   int64
	Name, Email, CreditCard, City, State string
	Extra                                string
}

// Auction is something to be sold.
type Auction struct {
	ID, Seller, Category int64
	InitialBid, Reserve  int64
	At, Expires          int64
	Item, Description    string
	Extra                string
}

// Bid is an offer. Prices are cents.
type Bid struct {
	Auction, Bidder, Price int64
	At                     int64
	Channel, URL           string
	Extra                  string
}

// Event is one of the three; the others are nil.
type Event struct {
	Person  *Person  `json:",omitempty"`
	Auction *Auction `json:",omitempty"`
	Bid     *Bid     `json:",omitempty"`
}

// Key is the key of the event's record.
func (e Event) Key() int64 {
	switch {
	case e.Person != nil:
		return e.Person.ID
	case e.Auction != nil:
		return e.Auction.ID
	}
	return e.Bid.Auction
}

// At is the event's time.
func (e Event) At() int64 {
	switch {
	case e.Person != nil:
		return e.Person.At
	case e.Auction != nil:
		return e.Auction.At
	}
	return e.Bid.At
}

// The codecs write a struct's numbers as varints, the lengths of its texts, and the texts one after another, which are
// decoded with one allocation. EventCodec writes a byte before that for what it is.
type (
	EventCodec   struct{}
	PersonCodec  struct{}
	AuctionCodec struct{}
	BidCodec     struct{}
)

const (
	isPerson = iota + 1
	isAuction
	isBid
)

var errEncoding = errors.New("nexmark: invalid encoding")

func (EventCodec) Append(dst []byte, e Event) ([]byte, error) {
	switch {
	case e.Person != nil:
		return PersonCodec{}.Append(append(dst, isPerson), e.Person)
	case e.Auction != nil:
		return AuctionCodec{}.Append(append(dst, isAuction), e.Auction)
	case e.Bid != nil:
		return BidCodec{}.Append(append(dst, isBid), e.Bid)
	}
	return dst, errEncoding
}

func (EventCodec) Decode(b []byte) (e Event, err error) {
	if len(b) == 0 {
		return e, errEncoding
	}
	switch b[0] {
	case isPerson:
		e.Person, err = PersonCodec{}.Decode(b[1:])
	case isAuction:
		e.Auction, err = AuctionCodec{}.Decode(b[1:])
	case isBid:
		e.Bid, err = BidCodec{}.Decode(b[1:])
	default:
		err = errEncoding
	}
	return e, err
}

func (PersonCodec) Append(dst []byte, p *Person) ([]byte, error) {
	return appendTexts(AppendNumbers(dst, p.ID, p.At), p.Name, p.Email, p.CreditCard, p.City, p.State, p.Extra), nil
}

func (PersonCodec) Decode(b []byte) (*Person, error) {
	p, r := new(Person), reader{b: b}
	p.ID, p.At = r.number(), r.number()
	return p, r.texts(&p.Name, &p.Email, &p.CreditCard, &p.City, &p.State, &p.Extra)
}

func (AuctionCodec) Append(dst []byte, a *Auction) ([]byte, error) {
	dst = AppendNumbers(dst, a.ID, a.Seller, a.Category, a.InitialBid, a.Reserve, a.At, a.Expires)
	return appendTexts(dst, a.Item, a.Description, a.Extra), nil
}

func (AuctionCodec) Decode(b []byte) (*Auction, error) {
	a, r := new(Auction), reader{b: b}
	a.ID, a.Seller, a.Category = r.number(), r.number(), r.number()
	a.InitialBid, a.Reserve = r.number(), r.number()
	a.At, a.Expires = r.number(), r.number()
	return a, r.texts(&a.Item, &a.Description, &a.Extra)
}

func (BidCodec) Append(dst []byte, b *Bid) ([]byte, error) {
	return appendTexts(AppendNumbers(dst, b.Auction, b.Bidder, b.Price, b.At), b.Channel, b.URL, b.Extra), nil
}

func (BidCodec) Decode(b []byte) (*Bid, error) {
	bid, r := new(Bid), reader{b: b}
	bid.Auction, bid.Bidder, bid.Price, bid.At = r.number(), r.number(), r.number(), r.number()
	return bid, r.texts(&bid.Channel, &bid.URL, &bid.Extra)
}

// AppendNumbers appends numbers as the codecs do.
func AppendNumbers(dst []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

func appendTexts(dst []byte, texts ...string) []byte {
	for _, t := range texts {
		dst = binary.AppendUvarint(dst, uint64(len(t)))
	}
	for _, t := range texts {
		dst = append(dst, t...)
	}
	return dst
}

// Numbers reads what AppendNumbers wrote, all of it.
func Numbers(b []byte, into ...*int64) error {
	r := reader{b: b}
	for _, n := range into {
		*n = r.number()
	}
	return r.texts()
}

// reader takes what the codecs wrote. What goes wrong is said by texts, which is called last.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() int64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return int64(n)
}

func (r *reader) texts(into ...*string) error {
	var ends [8]int
	total := 0
	for i := range into {
		n := r.number()
		if n < 0 || n > int64(len(r.b)) {
			return errEncoding
		}
		total += int(n)
		ends[i] = total
	}
	if r.bad || total != len(r.b) {
		return errEncoding
	}
	all, from := string(r.b), 0
	for i, t := range into {
		*t, from = all[from:ends[i]], ends[i]
	}
	return nil
}
