//! Expressions of alarms: text to a tree, a tree to a number. Pure: variables are asked of the caller.
//!
//! Precedence, loosest first: `&&` and `||` (equal, left to right); comparisons; `+` and `-`; `*` and `/`; unary; and
//! `? :`, which takes just the operand before it. The original rearranges only one level of what it has read so far, so it
//! reads some expressions without parentheses in another way: [`Expression::is_read_differently`] tells.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::base::intern::intern;

/// Longest text of an expression.
pub const TEXT_MAX: usize = 4096;
/// Parentheses and unary operators within each other.
const DEPTH_MAX: u32 = 64;
/// Nodes of one tree.
const NODES_MAX: usize = 1024;
/// Values that differ by less are equal.
const EQUAL_WITHIN: f64 = 1e-7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    And,
    Or,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    fn precedence(self) -> u8 {
        match self {
            Operator::And | Operator::Or => 2,
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Equal
            | Operator::NotEqual => 3,
            Operator::Add | Operator::Subtract => 4,
            Operator::Multiply | Operator::Divide => 5,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Operator::And => "&&",
            Operator::Or => "||",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Not,
    Plus,
    Minus,
    Abs,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Number(f64),
    /// Index into the variables of the expression.
    Variable(usize),
    Unary(Unary, Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// Condition, value if true, value if not.
    Choice(Box<[Node; 3]>),
}

/// An expression, parsed.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Arc<str>,
    tree: Node,
    variables: Box<[Arc<str>]>,
    read_differently: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {TEXT_MAX} bytes")]
    TooLong,
    #[error("it is too deep or has too many parts")]
    TooComplex,
    #[error("a value is missing at '{0}'")]
    Operand(String),
    #[error("a ')' is missing at '{0}'")]
    Parenthesis(String),
    #[error("a ':' is missing at '{0}'")]
    Colon(String),
    #[error("a '$' without a name at '{0}'")]
    Variable(String),
    #[error("'{0}' is not understood")]
    Rest(String),
}

/// Where the values of variables come from.
pub trait Values {
    /// The value of variable number `index` of the expression; `None` when there is none of that name.
    fn value(&mut self, index: usize) -> Option<f64>;
}

impl<F: FnMut(usize) -> Option<f64>> Values for F {
    fn value(&mut self, index: usize) -> Option<f64> {
        self(index)
    }
}

impl Expression {
    pub fn parse(text: &str) -> Result<Expression, Mistake> {
        if text.len() > TEXT_MAX {
            return Err(Mistake::TooLong);
        }
        if text.trim().is_empty() {
            return Err(Mistake::Empty);
        }
        let mut parser = Parser { rest: text, variables: Vec::new(), nodes: 0, depth: 0 };
        let both = parser.expression()?;
        parser.blanks();
        if !parser.rest.is_empty() {
            return Err(Mistake::Rest(parser.here()));
        }
        Ok(Expression {
            source: intern(text),
            read_differently: both.theirs.is_some(),
            tree: both.ours,
            variables: parser.variables.into_boxed_slice(),
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names, in order of their first use.
    pub fn variables(&self) -> &[Arc<str>] {
        &self.variables
    }

    /// The original makes another tree of this text.
    pub fn is_read_differently(&self) -> bool {
        self.read_differently
    }

    /// The result; `None` when it is no finite number.
    pub fn evaluate(&self, values: &mut dyn Values) -> Option<f64> {
        let value = evaluate(&self.tree, values);
        value.is_finite().then_some(value)
    }

    /// The tree, as text with all its parentheses.
    pub fn parsed(&self) -> String {
        let mut out = String::new();
        self.print(&self.tree, &mut out);
        out
    }

    fn print(&self, node: &Node, out: &mut String) {
        match node {
            Node::Number(n) => {
                let _ = if n.is_nan() { write!(out, "nan") } else { write!(out, "{n}") };
            }
            Node::Variable(index) => {
                let name = self.variables.get(*index).map_or("", |name| name);
                let _ = write!(out, "${{{name}}}");
            }
            Node::Unary(unary, of) => {
                out.push_str(match unary {
                    Unary::Not => "!",
                    Unary::Plus => "+",
                    Unary::Minus => "-",
                    Unary::Abs => "abs(",
                });
                self.print(of, out);
                if *unary == Unary::Abs {
                    out.push(')');
                }
            }
            Node::Binary(operator, left, right) => {
                out.push('(');
                self.print(left, out);
                let _ = write!(out, " {} ", operator.text());
                self.print(right, out);
                out.push(')');
            }
            Node::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                out.push('(');
                self.print(condition, out);
                out.push_str(" ? ");
                self.print(yes, out);
                out.push_str(" : ");
                self.print(no, out);
                out.push(')');
            }
        }
    }
}

fn truth(value: f64) -> bool {
    !value.is_nan() && value != 0.0
}

fn number(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// NaN wins over infinity, which has no sign here.
fn arithmetic(left: f64, right: f64, result: f64) -> f64 {
    if left.is_nan() || right.is_nan() {
        f64::NAN
    } else if left.is_infinite() || right.is_infinite() {
        f64::INFINITY
    } else {
        result
    }
}

fn equal(left: f64, right: f64) -> bool {
    if left.is_nan() || right.is_nan() {
        return left.is_nan() && right.is_nan();
    }
    if left.is_infinite() || right.is_infinite() {
        return left.is_infinite() && right.is_infinite();
    }
    (left - right).abs() < EQUAL_WITHIN
}

fn evaluate(node: &Node, values: &mut dyn Values) -> f64 {
    match node {
        Node::Number(n) => *n,
        Node::Variable(index) => values.value(*index).unwrap_or(f64::NAN),
        Node::Unary(unary, of) => {
            let value = evaluate(of, values);
            match unary {
                Unary::Not => number(!truth(value)),
                Unary::Plus => value,
                Unary::Minus if value.is_infinite() => f64::INFINITY,
                Unary::Minus => -value,
                Unary::Abs => value.abs(),
            }
        }
        Node::Choice(parts) => {
            let [condition, yes, no] = &**parts;
            let chosen = if truth(evaluate(condition, values)) { yes } else { no };
            evaluate(chosen, values)
        }
        Node::Binary(operator, left, right) => {
            let left = evaluate(left, values);
            match operator {
                Operator::And if !truth(left) => return 0.0,
                Operator::Or if truth(left) => return 1.0,
                _ => {}
            }
            let right = evaluate(right, values);
            match operator {
                Operator::And | Operator::Or => number(truth(right)),
                Operator::Less => number(left < right),
                Operator::LessOrEqual => number(left <= right),
                Operator::Greater => number(left > right),
                Operator::GreaterOrEqual => number(left >= right),
                Operator::Equal => number(equal(left, right)),
                Operator::NotEqual => number(!equal(left, right)),
                Operator::Add => arithmetic(left, right, left + right),
                Operator::Subtract => arithmetic(left, right, left - right),
                Operator::Multiply => arithmetic(left, right, left * right),
                Operator::Divide => arithmetic(left, right, left / right),
            }
        }
    }
}

/// What a text means, and what the original makes of it where that is something else.
struct Both {
    ours: Node,
    theirs: Option<Node>,
}

/// What may stand between two operands.
enum Link {
    Binary(Operator),
    Choice(Node, Node),
}

struct Parser<'a> {
    rest: &'a str,
    variables: Vec<Arc<str>>,
    nodes: usize,
    depth: u32,
}

impl Parser<'_> {
    fn here(&self) -> String {
        self.rest.chars().take(30).collect()
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        self.blanks();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A word of letters, in any case, that does not go on.
    fn eat_word(&mut self, word: &str) -> bool {
        self.blanks();
        let Some(head) = self.rest.get(..word.len()) else { return false };
        let goes_on = self.rest[word.len()..]
            .starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if !head.eq_ignore_ascii_case(word) || goes_on {
            return false;
        }
        self.rest = &self.rest[word.len()..];
        true
    }

    fn count(&mut self) -> Result<(), Mistake> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err(Mistake::TooComplex) } else { Ok(()) }
    }

    /// Operands and what links them, up to whatever is neither.
    fn expression(&mut self) -> Result<Both, Mistake> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Mistake::TooComplex);
        }
        let mut differs = false;
        let mut operands: Vec<Node> = Vec::new();
        let mut operators: Vec<Operator> = Vec::new();
        // What the original has after each step.
        let first = self.operand(&mut differs)?;
        let mut theirs = Theirs { tree: first.clone(), closed: true };
        let mut last = first;
        while let Some(link) = self.link(&mut differs)? {
            self.count()?;
            match link {
                Link::Choice(yes, no) => {
                    theirs.choice(&yes, &no);
                    last = Node::Choice(Box::new([last, yes, no]));
                }
                Link::Binary(operator) => {
                    operators.push(operator);
                    let next = self.operand(&mut differs)?;
                    theirs.binary(operator, &next);
                    operands.push(std::mem::replace(&mut last, next));
                }
            }
        }
        operands.push(last);
        let ours = climb(operands, &operators);
        // As text: a NaN in it is the same NaN.
        let differs = differs || format!("{ours:?}") != format!("{:?}", theirs.tree);
        self.depth -= 1;
        Ok(Both { theirs: differs.then_some(theirs.tree), ours })
    }

    fn link(&mut self, differs: &mut bool) -> Result<Option<Link>, Mistake> {
        const SIGNS: &[(&str, Operator)] = &[
            ("&&", Operator::And),
            ("||", Operator::Or),
            (">=", Operator::GreaterOrEqual),
            ("<=", Operator::LessOrEqual),
            ("<>", Operator::NotEqual),
            ("!=", Operator::NotEqual),
            ("==", Operator::Equal),
            ("=", Operator::Equal),
            (">", Operator::Greater),
            ("<", Operator::Less),
            ("+", Operator::Add),
            ("-", Operator::Subtract),
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
        ];
        for (sign, operator) in SIGNS {
            if self.eat(sign) {
                return Ok(Some(Link::Binary(*operator)));
            }
        }
        for (word, operator) in [("and", Operator::And), ("or", Operator::Or)] {
            if self.eat_word(word) {
                return Ok(Some(Link::Binary(operator)));
            }
        }
        if !self.eat("?") {
            return Ok(None);
        }
        let yes = self.expression()?;
        *differs |= yes.theirs.is_some();
        if !self.eat(":") {
            return Err(Mistake::Colon(self.here()));
        }
        let no = self.operand(differs)?;
        Ok(Some(Link::Choice(yes.ours, no)))
    }

    fn operand(&mut self, differs: &mut bool) -> Result<Node, Mistake> {
        self.count()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Mistake::TooComplex);
        }
        let node = self.bare_operand(differs)?;
        self.depth -= 1;
        Ok(node)
    }

    fn bare_operand(&mut self, differs: &mut bool) -> Result<Node, Mistake> {
        for (sign, unary) in [("!", Unary::Not), ("+", Unary::Plus), ("-", Unary::Minus)] {
            if self.eat(sign) {
                let of = self.operand(differs)?;
                return Ok(Node::Unary(unary, Box::new(of)));
            }
        }
        if self.eat_word("not") {
            let of = self.operand(differs)?;
            return Ok(Node::Unary(Unary::Not, Box::new(of)));
        }
        let before = self.rest;
        if self.eat_word("abs") {
            if !self.eat("(") {
                self.rest = before;
                return Err(Mistake::Operand(self.here()));
            }
            let of = self.closed(differs)?;
            return Ok(Node::Unary(Unary::Abs, Box::new(of)));
        }
        if self.eat("(") {
            return self.closed(differs);
        }
        if self.eat("$") {
            return self.variable();
        }
        for (word, value) in [("nan", f64::NAN), ("inf", f64::INFINITY)] {
            if self.eat_word(word) {
                return Ok(Node::Number(value));
            }
        }
        let length = number_length(self.rest.as_bytes());
        match self.rest[..length].parse::<f64>() {
            Ok(value) if length > 0 => {
                self.rest = &self.rest[length..];
                Ok(Node::Number(value))
            }
            _ => Err(Mistake::Operand(self.here())),
        }
    }

    /// The rest of a pair of parentheses.
    fn closed(&mut self, differs: &mut bool) -> Result<Node, Mistake> {
        let inner = self.expression()?;
        *differs |= inner.theirs.is_some();
        if self.eat(")") { Ok(inner.ours) } else { Err(Mistake::Parenthesis(self.here())) }
    }

    fn variable(&mut self) -> Result<Node, Mistake> {
        let name = if let Some(rest) = self.rest.strip_prefix('{') {
            let Some((name, rest)) = rest.split_once('}') else {
                return Err(Mistake::Variable(self.here()));
            };
            self.rest = rest;
            name
        } else {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let length = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
            let (name, rest) = self.rest.split_at(length);
            self.rest = rest;
            name
        };
        if name.is_empty() {
            return Err(Mistake::Variable(self.here()));
        }
        let known = self.variables.iter().position(|known| **known == *name);
        Ok(Node::Variable(known.unwrap_or_else(|| {
            self.variables.push(intern(name));
            self.variables.len() - 1
        })))
    }
}

/// Bytes of a decimal number at the beginning; 0 when there is none.
fn number_length(text: &[u8]) -> usize {
    let digits = |from: usize| text[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    let whole = digits(0);
    let mut length = whole;
    let mut fraction = 0;
    if text.get(length) == Some(&b'.') {
        fraction = digits(length + 1);
        if whole + fraction > 0 {
            length += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return 0;
    }
    if matches!(text.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = if length + 1 + sign <= text.len() { digits(length + 1 + sign) } else { 0 };
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

/// Operands and the operators between them as a tree, by precedence and from left to right.
fn climb(operands: Vec<Node>, operators: &[Operator]) -> Node {
    let mut values: Vec<Node> = Vec::new();
    let mut waiting: Vec<Operator> = Vec::new();
    let mut operators = operators.iter();
    for operand in operands {
        values.push(operand);
        let Some(operator) = operators.next() else { break };
        while waiting.last().is_some_and(|held| held.precedence() >= operator.precedence()) {
            reduce(&mut values, &mut waiting);
        }
        waiting.push(*operator);
    }
    while !waiting.is_empty() {
        reduce(&mut values, &mut waiting);
    }
    values.pop().unwrap_or(Node::Number(f64::NAN))
}

fn reduce(values: &mut Vec<Node>, waiting: &mut Vec<Operator>) {
    if let (Some(operator), Some(right), Some(left)) = (waiting.pop(), values.pop(), values.pop()) {
        values.push(Node::Binary(operator, Box::new(left), Box::new(right)));
    }
}

/// The tree as the original builds it: a tighter operator takes the right side of the top node, and looks no deeper.
struct Theirs {
    tree: Node,
    /// The top is an operand, not something that was just linked.
    closed: bool,
}

impl Theirs {
    fn binary(&mut self, operator: Operator, right: &Node) {
        self.add(operator.precedence(), |left| {
            Node::Binary(operator, Box::new(left), Box::new(right.clone()))
        });
    }

    fn choice(&mut self, yes: &Node, no: &Node) {
        self.add(7, |condition| Node::Choice(Box::new([condition, yes.clone(), no.clone()])));
    }

    fn add(&mut self, precedence: u8, make: impl FnOnce(Node) -> Node) {
        let tree = std::mem::replace(&mut self.tree, Node::Number(0.0));
        self.tree = match tree {
            Node::Binary(top, left, old) if !self.closed && top.precedence() < precedence => {
                Node::Binary(top, left, Box::new(make(*old)))
            }
            tree => make(tree),
        };
        self.closed = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn parsed(text: &str) -> String {
        Expression::parse(text).unwrap().parsed()
    }

    #[track_caller]
    fn value(text: &str) -> Option<f64> {
        let expression = Expression::parse(text).unwrap();
        let names = expression.variables().to_vec();
        expression.evaluate(&mut |index: usize| match &*names[index] {
            "a" => Some(7.0),
            "b" => Some(0.0),
            "gap" => Some(f64::NAN),
            _ => None,
        })
    }

    #[test]
    fn operators_bind_by_their_precedence() {
        for (text, want, differs) in [
            ("$a - 2 - 1 * 3 / 2", "((${a} - 2) - ((1 * 3) / 2))", false),
            ("$a && $b > 3 + 1", "(${a} && (${b} > (3 + 1)))", true),
            ("$a > 1 && $b < 2 + 3 * 4", "((${a} > 1) && (${b} < (2 + (3 * 4))))", true),
            ("$a > 5 ? 1 : 0", "(${a} > (5 ? 1 : 0))", false),
            ("$a || $b && $c", "((${a} || ${b}) && ${c})", false),
            ("!$a = 5", "(!${a} == 5)", false),
            (
                "$this > (($status >= $WARNING) ? (70) : (80))",
                "(${this} > ((${status} >= ${WARNING}) ? 70 : 80))",
                false,
            ),
            ("($a)AND($b)", "(${a} && ${b})", false),
            ("$a <> 3", "(${a} != 3)", false),
            ("abs(-$a) + 1.5e1", "(abs(-${a}) + 15)", false),
            ("${any text: 1} not_equal", "", false),
            ("($a + 1) * 2", "((${a} + 1) * 2)", false),
        ] {
            match Expression::parse(text) {
                Ok(expression) => {
                    assert_eq!(expression.parsed(), want, "{text}");
                    assert_eq!(expression.is_read_differently(), differs, "{text}");
                }
                Err(mistake) => assert!(want.is_empty(), "{text}: {mistake}"),
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for text in
            ["", " ", "1 +", "(1", "$", "${x", "1 2", "1 ? 2", "0x10", "abs 3", "* 2", "$a and"]
        {
            assert!(Expression::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Expression::parse(&"(".repeat(200)).unwrap_err(), Mistake::TooComplex);
        assert_eq!(Expression::parse(&"-".repeat(200)).unwrap_err(), Mistake::TooComplex);
        assert_eq!(Expression::parse(&"1+".repeat(2000)).unwrap_err(), Mistake::TooComplex);
    }

    #[test]
    fn what_is_not_a_number_is_no_result_and_not_true() {
        assert_eq!(value("$a || $b && $nothere"), Some(0.0));
        assert_eq!(value("$b || $a || $nothere"), Some(1.0));
        assert_eq!(value("$nothere"), None);
        assert_eq!(value("1 / 0"), None);
        assert_eq!(value("$gap > 3"), Some(0.0));
        assert_eq!(value("$gap == nan"), Some(1.0));
        assert_eq!(value("inf == -inf"), Some(1.0));
        assert_eq!(value("!nan"), Some(1.0));
        assert_eq!(value("(inf) ? (3) : (4)"), Some(3.0));
        assert_eq!(value("0.00000001 == 0"), Some(1.0));
        assert_eq!(parsed("1 OR 0"), "(1 || 0)");
    }

    // --- an independent evaluator: recursive descent over the text, no tree ------------------------

    struct Simple<'a>(&'a [u8]);

    impl Simple<'_> {
        fn peek(&mut self) -> u8 {
            while self.0.first() == Some(&b' ') {
                self.0 = &self.0[1..];
            }
            self.0.first().copied().unwrap_or(0)
        }

        fn eat(&mut self, text: &str) -> bool {
            self.peek();
            let found = self.0.starts_with(text.as_bytes());
            if found {
                self.0 = &self.0[text.len()..];
            }
            found
        }

        fn level(&mut self, level: usize) -> f64 {
            const LEVELS: [&[&str]; 4] =
                [&["&&", "||"], &[">=", "<=", "!=", "==", ">", "<"], &["+", "-"], &["*", "/"]];
            if level == LEVELS.len() {
                return self.operand();
            }
            let mut left = self.level(level + 1);
            while let Some(sign) = LEVELS[level].iter().find(|sign| self.eat(sign)) {
                let right = self.level(level + 1);
                let is = |x: f64| x != 0.0 && !x.is_nan();
                let bit = |b: bool| f64::from(u8::from(b));
                let special = if left.is_nan() || right.is_nan() {
                    Some(f64::NAN)
                } else if left.is_infinite() || right.is_infinite() {
                    Some(f64::INFINITY)
                } else {
                    None
                };
                let same = match special {
                    Some(x) if x.is_nan() => left.is_nan() == right.is_nan(),
                    Some(_) => left.is_infinite() == right.is_infinite(),
                    None => (left - right).abs() < 1e-7,
                };
                left = match *sign {
                    "&&" => bit(is(left) && is(right)),
                    "||" => bit(is(left) || is(right)),
                    ">=" => bit(left >= right),
                    "<=" => bit(left <= right),
                    ">" => bit(left > right),
                    "<" => bit(left < right),
                    "==" => bit(same),
                    "!=" => bit(!same),
                    "+" => special.unwrap_or(left + right),
                    "-" => special.unwrap_or(left - right),
                    "*" => special.unwrap_or(left * right),
                    _ => special.unwrap_or(left / right),
                };
            }
            left
        }

        fn operand(&mut self) -> f64 {
            let mut value = self.single();
            while self.eat("?") {
                let yes = self.level(0);
                assert!(self.eat(":"));
                let no = self.single();
                value = if value != 0.0 && !value.is_nan() { yes } else { no };
            }
            value
        }

        fn single(&mut self) -> f64 {
            if self.eat("!") {
                let value = self.single();
                return f64::from(u8::from(value == 0.0 || value.is_nan()));
            }
            if self.eat("-") {
                let value = self.single();
                return if value.is_infinite() { f64::INFINITY } else { -value };
            }
            if self.eat("abs(") {
                let value = self.level(0).abs();
                assert!(self.eat(")"));
                return value;
            }
            if self.eat("(") {
                let value = self.level(0);
                assert!(self.eat(")"));
                return value;
            }
            if self.eat("$a") {
                return 7.0;
            }
            if self.eat("$gap") {
                return f64::NAN;
            }
            self.peek();
            let digits = self.0.iter().take_while(|c| c.is_ascii_digit()).count();
            let (number, rest) = self.0.split_at(digits);
            self.0 = rest;
            std::str::from_utf8(number).unwrap().parse().unwrap()
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (0u32..20).prop_map(|n| n.to_string()),
            Just("$a".to_owned()),
            Just("$gap".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            let sign = proptest::sample::select(vec![
                "&&", "||", ">", ">=", "<", "<=", "==", "!=", "+", "-", "*", "/",
            ]);
            prop_oneof![
                (inner.clone(), sign, inner.clone()).prop_map(|(l, s, r)| format!("{l} {s} {r}")),
                inner.clone().prop_map(|x| format!("({x})")),
                inner.clone().prop_map(|x| format!("!({x})")),
                inner.clone().prop_map(|x| format!("-({x})")),
                inner.clone().prop_map(|x| format!("abs({x})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(c, y, n)| format!("({c}) ? {y} : ({n})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_those_of_an_independent_evaluator(text in texts()) {
            let expression = Expression::parse(&text).unwrap();
            let names = expression.variables().to_vec();
            let got = expression.evaluate(&mut |index: usize| match &*names[index] {
                "a" => Some(7.0),
                _ => Some(f64::NAN),
            });
            let mut simple = Simple(text.as_bytes());
            let want = simple.level(0);
            prop_assert!(simple.peek() == 0, "{text}");
            prop_assert_eq!(got, want.is_finite().then_some(want), "{}", text);
            let again = Expression::parse(&expression.parsed()).unwrap();
            let names = again.variables().to_vec();
            let same = again.evaluate(&mut |index: usize| match &*names[index] {
                "a" => Some(7.0),
                _ => Some(f64::NAN),
            });
            prop_assert_eq!(got, same, "printed: {}", expression.parsed());
        }

        #[test]
        fn no_text_panics(text in "[ 0-9a-z$(){}?:!<>=&|+*/.-]{0,60}") {
            if let Ok(expression) = Expression::parse(&text) {
                expression.evaluate(&mut |_: usize| None);
            }
        }
    }
}
