//! Dimensions as products of constants, batch and length.

/// The batch and the length that a computation was built for, which stand for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// A prime, and no factor of a dimension of the model.
    pub batch: usize,
    /// Another one.
    pub length: usize,
}

/// A dimension: `constant` · batchⁱ · lengthʲ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    /// The constant factor.
    pub constant: usize,
    /// i
    pub batch: u32,
    /// j
    pub length: u32,
}

impl Symbols {
    /// Returns symbols for a model with the dimensions `dims` and rows of at most `longest` positions; none if every prime up to
    /// `longest` divides one of them.
    pub fn for_model(dims: &[usize], longest: usize) -> Option<Symbols> {
        let divides_none = |prime: &usize| dims.iter().all(|dim| !dim.is_multiple_of(*prime));
        let length = (2..=longest).rev().filter(|&n| is_prime(n)).find(divides_none)?;
        let batch = (longest.max(10_000) + 1..).filter(|&n| is_prime(n)).find(divides_none)?;
        Some(Symbols { batch, length })
    }

    /// Returns a dimension as a product.
    pub fn dim(self, mut size: usize) -> Dim {
        let mut power = |symbol: usize| {
            let mut exponent = 0;
            while size != 0 && size.is_multiple_of(symbol) {
                size /= symbol;
                exponent += 1;
            }
            exponent
        };
        let (batch, length) = (power(self.batch), power(self.length));
        Dim { constant: size, batch, length }
    }
}

impl Dim {
    /// Returns whether the dimension depends on neither batch nor length.
    pub fn is_constant(self) -> bool {
        self.batch == 0 && self.length == 0
    }

    /// Returns the name of an input's dimension; none for products.
    pub fn name(self) -> Option<&'static str> {
        match (self.constant, self.batch, self.length) {
            (1, 1, 0) => Some("batch_size"),
            (1, 0, 1) => Some("sequence_length"),
            _ => None,
        }
    }
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_divide_no_dimension_of_the_model() {
        let symbols = Symbols::for_model(&[768, 3072, 30_522, 509], 512).unwrap();
        assert_eq!((symbols.length, symbols.batch), (503, 10_007));
        assert_eq!(Symbols::for_model(&[64, 6], 3), None, "2 and 3 divide a dimension");
        assert_eq!(Symbols::for_model(&[64, 6, 10_007], 8).unwrap(), Symbols { batch: 10_009, length: 7 });
    }

    #[test]
    fn dimensions_are_products() {
        let symbols = Symbols { batch: 10_007, length: 503 };
        let dim = |constant, batch, length| Dim { constant, batch, length };
        assert_eq!(symbols.dim(768), dim(768, 0, 0));
        assert_eq!(symbols.dim(10_007 * 503), dim(1, 1, 1));
        assert_eq!(symbols.dim(503 * 503 * 12), dim(12, 0, 2));
        assert_eq!(symbols.dim(0), dim(0, 0, 0));
        let names = [10_007, 503, 10_007 * 503, 1].map(|size| symbols.dim(size).name());
        assert_eq!(names, [Some("batch_size"), Some("sequence_length"), None, None]);
    }
}
