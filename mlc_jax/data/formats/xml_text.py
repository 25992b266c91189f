"""XML from files nobody vouches for: no entities, no external anything, a cap on size."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from mlc_jax.errors import LabelsError

MAX_BYTES = 2**28


def load(path: Path) -> Element:
    """The root of an XML file.

    Raises:
      LabelsError: it cannot be read, is too large, no XML, or defines entities.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelsError(f"{path} has more than {MAX_BYTES} bytes")
        root: Element = parse(path, forbid_dtd=True).getroot()
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error.strerror}") from None
    except DefusedXmlException:
        raise LabelsError(f"{path} defines a document type or entities; export it again") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is no XML ({error}); export it again") from None
    return root
